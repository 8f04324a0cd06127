//! The programs with which people and programs send mail: swaks, msmtp, curl, Python's smtplib, nodemailer.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{cache, program, python};
use crate::letter::Letter;
use crate::process::run;

/// Who sends, to whom, and with which login.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    /// Where to.
    pub server: SocketAddr,
    /// Whether TLS begins with the connection; otherwise STARTTLS is demanded when there is a login.
    pub implicit_tls: bool,
    /// Reverse path.
    pub from: &'a str,
    /// Recipients.
    pub to: &'a [&'a str],
    /// Login and password.
    pub login: Option<(&'a str, &'a str)>,
}

const WITHIN: Duration = Duration::from_secs(60);

/// `swaks`, with the letter as it is.
pub fn swaks(how: &Submission<'_>, letter: &Letter, dir: &Path) -> String {
    let file = dir.join(format!("swaks-{}.eml", letter.id));
    // swaks ends every line of its file with CRLF by itself, and doubles the dots.
    fs::write(&file, String::from_utf8_lossy(&letter.bytes).replace("\r\n", "\n").trim_end_matches('\n'))
        .unwrap();
    let mut command = Command::new("swaks");
    command.args(["--server", &how.server.to_string(), "--from", how.from, "--to", &how.to.join(",")]);
    command.args(["--ehlo", "client.example", "--data", &format!("@{}", file.display())]);
    if let Some((user, password)) = how.login {
        command.args(["--auth", "PLAIN,LOGIN", "--auth-user", user, "--auth-password", password]);
    }
    match (how.implicit_tls, how.login) {
        (true, _) => drop(command.arg("--tls-on-connect")),
        (false, Some(_)) => drop(command.arg("--tls")),
        (false, None) => {}
    }
    run("swaks", command, WITHIN)
}

/// `msmtp`, with the letter on standard input.
pub fn msmtp(how: &Submission<'_>, letter: &Letter, dir: &Path) -> String {
    let file = dir.join(format!("msmtp-{}.eml", letter.id));
    fs::write(&file, String::from_utf8_lossy(&letter.bytes).replace("\r\n", "\n")).unwrap();
    let mut words = vec![
        "msmtp".to_owned(),
        "--file=/dev/null".to_owned(),
        format!("--host={}", how.server.ip()),
        format!("--port={}", how.server.port()),
        format!("--from={}", how.from),
        "--domain=client.example".to_owned(),
    ];
    if let Some((user, password)) = how.login {
        words.extend([
            "--auth=on".to_owned(),
            format!("--user={user}"),
            format!("--passwordeval=echo {password}"),
        ]);
        words.extend(["--tls=on".to_owned(), "--tls-certcheck=off".to_owned()]);
        words.push(format!("--tls-starttls={}", if how.implicit_tls { "off" } else { "on" }));
    }
    let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
    let script = format!("{} -- {} < '{}'", quoted.join(" "), how.to.join(" "), file.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    run("msmtp", command, WITHIN)
}

/// `curl smtp://`, with the letter as its upload.
pub fn curl(how: &Submission<'_>, letter: &Letter, dir: &Path) -> String {
    let file = dir.join(format!("curl-{}.eml", letter.id));
    fs::write(&file, &letter.bytes).unwrap();
    let scheme = if how.implicit_tls { "smtps" } else { "smtp" };
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "-k",
        &format!("{scheme}://{}/client.example", how.server),
        "--mail-from",
        how.from,
    ]);
    for to in how.to {
        command.args(["--mail-rcpt", to]);
    }
    command.arg("--upload-file").arg(&file);
    if let Some((user, password)) = how.login {
        command.args(["--user", &format!("{user}:{password}")]);
        if !how.implicit_tls {
            command.arg("--ssl-reqd");
        }
    }
    run("curl", command, WITHIN)
}

const SMTPLIB: &str = "import smtplib,ssl,sys,json\n\
    a=json.loads(sys.argv[1])\n\
    c=ssl._create_unverified_context()\n\
    s=smtplib.SMTP_SSL(a['host'],a['port'],'client.example',context=c) if a['tls'] else smtplib.SMTP(a['host'],a['port'],'client.example')\n\
    if a['user']:\n\
    \x20if not a['tls']: s.starttls(context=c)\n\
    \x20s.login(a['user'],a['password'])\n\
    print(s.sendmail(a['from'],a['to'],open(a['file'],'rb').read(),mail_options=['BODY=8BITMIME']))\n\
    s.quit()\n";

/// Python's smtplib.
pub fn smtplib(how: &Submission<'_>, letter: &Letter, dir: &Path) -> String {
    let file = dir.join(format!("smtplib-{}.eml", letter.id));
    fs::write(&file, &letter.bytes).unwrap();
    let python = if python().exists() { python() } else { program("python3").unwrap() };
    let mut command = Command::new(python);
    command.args(["-c", SMTPLIB, &arguments(how, &file).to_string()]);
    run("smtplib", command, WITHIN)
}

const NODEMAILER: &str = "const a=JSON.parse(process.argv[1]);\
    const t=require('nodemailer').createTransport({host:a.host,port:a.port,secure:a.tls,name:'client.example',\
    auth:a.user?{user:a.user,pass:a.password}:undefined,ignoreTLS:!a.user,tls:{rejectUnauthorized:false}});\
    t.sendMail({envelope:{from:a.from,to:a.to},raw:require('fs').readFileSync(a.file)})\
    .then(r=>{console.log(r.response);t.close()},e=>{console.error(e);process.exit(1)})";

/// nodemailer.
pub fn nodemailer(how: &Submission<'_>, letter: &Letter, dir: &Path) -> String {
    let file = dir.join(format!("nodemailer-{}.eml", letter.id));
    fs::write(&file, &letter.bytes).unwrap();
    let mut command = Command::new(program("node").unwrap());
    command.args(["-e", NODEMAILER, &arguments(how, &file).to_string()]);
    command.env("NODE_PATH", cache().join("node/node_modules"));
    run("nodemailer", command, WITHIN)
}

fn arguments(how: &Submission<'_>, file: &Path) -> serde_json::Value {
    serde_json::json!({
        "host": how.server.ip().to_string(), "port": how.server.port(), "tls": how.implicit_tls,
        "from": how.from, "to": how.to, "file": file,
        "user": how.login.map(|l| l.0), "password": how.login.map(|l| l.1),
    })
}

/// A sender of mail: its name, what it needs to run, and how it sends.
pub type Sender = (&'static str, &'static [&'static str], fn(&Submission<'_>, &Letter, &Path) -> String);

/// Every submitter.
pub const ALL: [Sender; 5] = [
    ("swaks", &["swaks"], swaks),
    ("msmtp", &["msmtp"], msmtp),
    ("curl", &["curl"], curl),
    ("smtplib", &["python3"], smtplib),
    ("nodemailer", &["nodemailer"], nodemailer),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Sink;

    #[test]
    fn each_submitter_delivers_its_letter() {
        let dir = tempfile::tempdir().unwrap();
        for (name, needs, send) in ALL {
            if let Some(why) = super::super::missing(needs) {
                super::super::skip(&why);
                continue;
            }
            let sink = Sink::start();
            let letter = Letter::new(format!("n-{name}"), 3000);
            let to = ["b@y.example", "c@z.example"];
            let how = Submission {
                server: sink.addr(),
                implicit_tls: false,
                from: "a@x.example",
                to: &to,
                login: None,
            };
            send(&how, &letter, dir.path());
            let got = sink.wait_one();
            letter.assert_arrived(&got.data);
            assert_eq!(got.recipients(), to, "{name}");
        }
    }
}
