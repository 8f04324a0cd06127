//! The little of Patroni's REST interface that the tests ask.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// A member as the cluster sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its machine's name.
    pub name: String,
    /// `leader`, `replica`, `sync_standby`, `quorum_standby`.
    pub role: String,
    /// `running`, `streaming`, `starting`, `crashed`, …
    pub state: String,
    /// Which history it follows; every fail-over begins a new one.
    pub timeline: u64,
}

impl Member {
    /// Whether a commit may count on it.
    pub fn is_standby_that_counts(&self) -> bool {
        self.role.ends_with("_standby") && self.state == "streaming"
    }
}

/// The members, if the agent at this address answers.
pub(super) fn members(agent: IpAddr) -> Option<Vec<Member>> {
    parse(&get(SocketAddr::from((agent, 8008)), "/cluster")?)
}

fn get(addr: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

fn parse(body: &str) -> Option<Vec<Member>> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let member = |m: &serde_json::Value| {
        let text = |key: &str| m[key].as_str().unwrap_or_default().to_owned();
        Member {
            name: text("name"),
            role: text("role"),
            state: text("state"),
            timeline: m["timeline"].as_u64().unwrap_or(0),
        }
    };
    Some(body["members"].as_array()?.iter().map(member).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let members = parse(
            r#"{"members": [{"name": "pg1", "role": "leader", "state": "running", "timeline": 3},
                {"name": "pg2", "role": "quorum_standby", "state": "streaming", "timeline": 3, "lag": 0},
                {"name": "pg3", "role": "replica", "state": "stopped"}], "scope": "posthouse"}"#,
        )
        .unwrap();
        let counts: Vec<bool> = members.iter().map(Member::is_standby_that_counts).collect();
        assert_eq!(counts, [false, true, false]);
        assert_eq!((members[0].timeline, members[2].timeline), (3, 0));
        assert!(parse("not JSON").is_none());
    }
}
