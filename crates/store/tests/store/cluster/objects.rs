//! Large content in object storage, against an S3 server that keeps its objects in files.

use std::fs;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use store::{Content, ObjectsConfig};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

const MIB: usize = 1 << 20;

/// An S3 server with one bucket.
struct S3 {
    root: TempDir,
    port: u16,
    service: S3Service,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl S3 {
    async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mail")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("relay", "secret"));
        let mut this = Self { root, port: 0, service: builder.build(), serving: None };
        this.up().await;
        this
    }

    /// Answers, on the port that it had before.
    async fn up(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let service = self.service.clone();
        self.serving = Some(tokio::spawn(async move {
            // Gone with this task.
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        }));
    }

    async fn down(&mut self) {
        let serving = self.serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    fn config(&self) -> ObjectsConfig {
        ObjectsConfig {
            url: "s3://mail/relay/one".into(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "us-east-1".into(),
            access_key: "relay".into(),
            secret_key: "secret".into(),
            above: MIB as u64,
        }
    }

    fn objects(&self) -> Option<Objects> {
        Some(Objects::new(&self.config()).unwrap())
    }

    /// The files of all objects.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.root.path().join("mail"), &mut files);
        files
    }

    async fn files_become(&self, n: usize) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while self.files().len() != n {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{:?} in place of {n}", self.files()));
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_content_is_put_there_and_goes_with_the_last_delivery() {
    let (cluster, s3) = (Cluster::new(), S3::start().await);
    let a = cluster.open_with(A, 1, s3.objects()).await;
    let b = cluster.open_with(B, 1, s3.objects()).await;
    let sizes = [3_000, MIB - 1, MIB, MIB + 1, 3 * MIB, 8 * MIB, 8 * MIB + 1, 21 * MIB];
    let mut admitted = Vec::new();
    for (seed, size) in (1..).zip(sizes) {
        let content = octets(seed, size);
        let two = vec![
            delivery("one.example", 0..1, NewState::Active),
            delivery("two.example", 1..2, waiting(cluster.now())),
        ];
        let waiting = admit(&a, &content, two).await;
        assert_eq!(waiting[0].body.as_ref().unwrap().read_all_up_to(usize::MAX).await.unwrap(), content);
        admitted.push((waiting, content));
    }
    assert_eq!(s3.files().len(), 5, "those above a megabyte");
    assert_eq!(cluster.sql("SELECT count(DISTINCT message) FROM store.content"), "3");
    assert_eq!(cluster.sql("SELECT count(*) FROM store.message WHERE place = 1"), "5");
    assert!(s3.files()[0].starts_with(s3.root.path().join("mail/relay/one")));
    for (waiting, content) in &admitted {
        // As handed back, and as another node finds it.
        assert_eq!(&stored(&a, &waiting[0]).await, content);
        let found = b.load(waiting[1].id).await.unwrap().unwrap();
        assert_eq!(found.content, waiting[1].content);
        assert_eq!(&stored(&b, &found).await, content);
    }
    let large = b.content(&admitted[7].0[0].content).await.unwrap();
    assert!(matches!(large, Content::File(_)), "not in memory");
    let report = b.verify().await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let total = sizes.iter().map(|size| *size as u64).sum::<u64>();
    assert_eq!((report.messages, report.bytes, a.stats().live_bytes), (8, total, total));
    let stats = a.stats().objects;
    assert_eq!((stats.puts, stats.put_bytes), (5, sizes[3..].iter().map(|size| *size as u64).sum()));

    // It stays as long as one delivery does, and goes with the last, whichever node settles that.
    for (waiting, _) in &admitted {
        assert!(a.settled(settlement(waiting[0].id, Next::Done)).await.unwrap().found);
    }
    let page = b.page(&mx("two.example"), cluster.now(), 100).await.unwrap();
    assert_eq!(page.len(), 8);
    assert_eq!(s3.files().len(), 5);
    for waiting in &page {
        assert!(b.settled(settlement(waiting.id, Next::Done)).await.unwrap().found);
    }
    s3.files_become(0).await;
    // Counted when all have gone that were to go together.
    let counted = async {
        while b.stats().objects.deletes != 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.unwrap();
    assert!(matches!(a.content(&page[7].content).await, Err(StoreError::Invalid(_))), "gone is not damaged");
    assert_eq!(cluster.sql("SELECT sum(live) FROM store.node"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_leaves_no_object_and_what_a_crash_leaves_is_swept() {
    let (cluster, s3) = (Cluster::new(), S3::start().await);
    let a = cluster.open_with(A, 1, s3.objects()).await;
    let content = octets(1, 2 * MIB);
    let expires = cluster.now().plus(Duration::from_secs(60));
    for n in 0..3 {
        let mut keyed = admission(&a, &content, vec![delivery("dest.example", 0..1, NewState::Active)]).await;
        keyed.dedupe = Some(Dedupe { org: mail::OrgId::DEFAULT, key: vec![1], expires });
        assert_eq!(matches!(a.admit(keyed).await.unwrap(), Admitted::Duplicate(_)), n > 0);
    }
    s3.files_become(1).await;
    let kept = s3.files().remove(0);
    // What a crash between the object and its commit leaves, yesterday and today; and what somebody else keeps there.
    let (old, young) = (kept.with_file_name("0123456789abcdef"), kept.with_file_name("fedcba9876543210"));
    let foreign = kept.with_file_name("notes.txt");
    for (path, age) in [(&kept, 5), (&old, 2), (&foreign, 3), (&young, 0)] {
        if path != &kept {
            fs::write(path, b"lost").unwrap();
        }
        let at = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(cluster.now().0).unwrap());
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(at - Duration::from_secs(age * 86_400 + 60)).unwrap();
    }
    assert_eq!(a.sweep_objects().await.unwrap(), 1);
    let mut left = s3.files();
    left.sort();
    let mut expected = vec![kept, young, foreign];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(a.stats().objects.swept, 1);
    assert!(a.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_away_mail_is_taken_and_what_is_there_waits() {
    let (cluster, mut s3) = (Cluster::new(), S3::start().await);
    let a = cluster.open_with(A, 1, s3.objects()).await;
    let active = || vec![delivery("dest.example", 0..1, NewState::Active)];
    let before = octets(1, 2 * MIB);
    let there = admit(&a, &before, active()).await.remove(0);
    s3.down().await;
    let meanwhile = octets(2, 2 * MIB);
    let here = admit(&a, &meanwhile, active()).await.remove(0);
    assert_eq!(stored(&a, &here).await, meanwhile, "in the database");
    let away = a.content(&there.content).await.unwrap_err();
    assert!(matches!(&away, StoreError::Unavailable(_)) && away.is_transient(), "{away}");
    assert_eq!(a.load(there.id).await.unwrap().unwrap().state, State::Active, "that is no damage");
    assert!(a.stats().objects.failures >= 2);
    // A node starts all the same.
    let b = cluster.open_with(B, 1, s3.objects()).await;
    // What cannot be deleted is left to a sweep.
    assert!(a.settled(settlement(there.id, Next::Done)).await.unwrap().found);
    s3.up().await;
    let again = admit(&b, &before, active()).await.remove(0);
    assert_eq!(stored(&a, &again).await, before);
    assert_eq!(cluster.sql("SELECT string_agg(place::text, ',' ORDER BY id) FROM store.message"), "0,1");
    assert!(a.verify().await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_there_is_found_and_quarantined() {
    let (cluster, s3) = (Cluster::new(), S3::start().await);
    let a = cluster.open_with(A, 1, s3.objects()).await;
    let one = admit_one(&a, &octets(1, 2 * MIB)).await;
    let file = s3.files().remove(0);
    let two = admit_one(&a, &octets(2, 2 * MIB)).await;
    let mut bytes = fs::read(&file).unwrap();
    bytes[MIB] ^= 1;
    fs::write(&file, bytes).unwrap();
    let other = s3.files().into_iter().find(|path| *path != file).unwrap();
    fs::remove_file(other).unwrap();
    assert_eq!(a.verify().await.unwrap().damaged.len(), 2);
    for waiting in [&one, &two] {
        assert!(matches!(a.content(&waiting.content).await, Err(StoreError::Damaged { .. })));
        assert_eq!(a.load(waiting.id).await.unwrap().unwrap().state, State::Quarantined);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_missing_buckets_are_told_at_the_start() {
    let (cluster, s3) = (Cluster::new(), S3::start().await);
    let wrong = ObjectsConfig { secret_key: "other".into(), ..s3.config() };
    let missing = ObjectsConfig { url: "s3://nowhere".into(), ..s3.config() };
    for config in [wrong, missing] {
        let refused = Objects::new(&config).unwrap().probe().await.unwrap_err();
        assert!(matches!(refused, StoreError::Objects(_)), "{refused}");
    }
    Objects::new(&s3.config()).unwrap().probe().await.unwrap();
    // A node that does not know of the storage cannot read what is there, and says so; nothing happens to the mail.
    let a = cluster.open_with(A, 1, s3.objects()).await;
    let b = cluster.open(B, 1).await;
    let waiting = admit_one(&a, &octets(1, 2 * MIB)).await;
    let error = b.content(&waiting.content).await.unwrap_err();
    assert!(matches!(&error, StoreError::Objects(_)) && error.is_transient(), "{error}");
    assert_eq!(a.load(waiting.id).await.unwrap().unwrap().state, State::Active);
}
