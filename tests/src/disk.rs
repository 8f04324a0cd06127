//! Disks that can be cut off, filled up and mounted again: ext4 on a loop device, and small tmpfs.
//!
//! A power cut is the file system's own shutdown request without flushing its log: what was not synced is lost, just as
//! when the machine's plug is pulled. It works wherever loop devices do, and needs root.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::run;
use crate::wait::eventually;

const SHUTDOWN: &str = "import os,fcntl,struct,sys\n\
    fd=os.open(sys.argv[1],os.O_RDONLY)\n\
    fcntl.ioctl(fd,0x8004587D,struct.pack('I',2))\n";

/// A mounted file system of its own.
pub struct Disk {
    dir: TempDir,
    image: Option<PathBuf>,
    mounted: bool,
}

impl Disk {
    /// An ext4 of so many MiB on a loop device.
    pub fn ext4(mebibytes: u64) -> Self {
        let dir = TempDir::with_prefix("posthouse-disk-").unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        tool("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let mut disk = Self { dir, image: Some(image), mounted: false };
        disk.mount();
        disk
    }

    /// A tmpfs of so many KiB.
    pub fn tmpfs(kibibytes: u64) -> Self {
        let dir = TempDir::with_prefix("posthouse-disk-").unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let disk = Self { dir, image: None, mounted: true };
        let size = format!("size={kibibytes}k,mode=0755");
        tool("mount", &["-t", "tmpfs", "-o", &size, "posthouse-test", disk.path().to_str().unwrap()]);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn mount(&mut self) {
        let image = self.image.as_ref().unwrap();
        tool("mount", &["-o", "loop", image.to_str().unwrap(), self.path().to_str().unwrap()]);
        self.mounted = true;
    }

    /// Pulls the plug: nothing more reaches the disk, and what was not synced is lost.
    pub fn power_cut(&self) {
        tool("python3", &["-c", SHUTDOWN, self.path().to_str().unwrap()]);
    }

    /// Mounts the disk again after a power cut; whoever used it must be gone.
    pub fn power_on(&mut self) {
        self.unmount();
        self.mount();
    }

    fn unmount(&mut self) {
        if self.mounted {
            tool("umount", &[self.path().to_str().unwrap()]);
            self.mounted = false;
            // A mount namespace that was made meanwhile keeps it too; only when the last is gone is the disk really off.
            let image = self.image.clone().unwrap_or_default();
            eventually("the disk is let go of", Duration::from_secs(60), || {
                let users = Command::new("losetup").arg("-j").arg(&image).output().unwrap();
                users.stdout.is_empty().then_some(())
            });
        }
    }

    /// Fills the file system until nothing is left, but for about `spare` octets. Returns the file to delete to make room
    /// again. Others may write meanwhile: they lose.
    pub fn fill(&self, spare: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let mut ballast = File::create(&path).unwrap();
        let zeros = [0; 64 * 1024];
        loop {
            let stat = nix::sys::statvfs::statvfs(&self.path()).unwrap();
            let free = stat.blocks_available() * stat.fragment_size();
            let more = usize::try_from(free.saturating_sub(spare)).unwrap().min(zeros.len());
            if more == 0 || ballast.write_all(&zeros[..more]).is_err() {
                return path;
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

fn tool(name: &str, args: &[&str]) {
    let mut command = Command::new(name);
    command.args(args);
    run(name, command, Duration::from_secs(60));
}

/// Whether loop devices and mounts are to be had here; says why not.
pub fn can_mount() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("mounting needs root".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
        if let Err(why) = can_mount() {
            return crate::neighbours::skip(&why);
        }
        let mut disk = Disk::ext4(32);
        let mut synced = File::create(disk.path().join("synced")).unwrap();
        synced.write_all(b"here").unwrap();
        synced.sync_all().unwrap();
        File::open(disk.path()).unwrap().sync_all().unwrap();
        fs::write(disk.path().join("not-synced"), b"gone").unwrap();
        drop(synced);
        disk.power_cut();
        assert!(fs::write(disk.path().join("after"), b"x").is_err());
        disk.power_on();
        assert_eq!(fs::read(disk.path().join("synced")).unwrap(), b"here");
        assert!(!disk.path().join("not-synced").exists());
    }

    #[test]
    fn a_full_disk_is_full() {
        if let Err(why) = can_mount() {
            return crate::neighbours::skip(&why);
        }
        let disk = Disk::tmpfs(1024);
        let ballast = disk.fill(0);
        assert!(fs::write(disk.path().join("more"), [0; 8192]).is_err());
        fs::remove_file(ballast).unwrap();
        fs::write(disk.path().join("more"), [0; 8192]).unwrap();
    }
}
