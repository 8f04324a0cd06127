//! A token server (RFC 6749) over TLS, with an introspection endpoint (RFC 7662) in the clear for mail servers beside it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mail::{Clock, Mono};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the server goes by and what it saw.
pub(crate) struct State {
    clock: Clock,
    /// Seconds that an access token is good for, as it says and as it holds.
    pub(crate) life: u64,
    /// Whether each use of a refresh token brings a new one, and ends the old one.
    pub(crate) rotates: bool,
    /// Answers this instead of a token: status and body.
    pub(crate) trouble: Option<(u16, String)>,
    /// Waits this long before it answers.
    pub(crate) slow: Duration,
    /// The refresh token that is good.
    pub(crate) refresh_token: String,
    /// The client's secret.
    pub(crate) secret: String,
    /// Access tokens that were handed out, until when each is good.
    tokens: HashMap<String, Mono>,
    /// The forms of all requests.
    pub(crate) asked: Vec<HashMap<String, String>>,
}

impl State {
    /// Ends the life of all tokens that were handed out.
    pub(crate) fn withdraw(&mut self) {
        self.tokens.clear();
    }

    /// Whether an access token is good now.
    pub(crate) fn is_good(&self, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|until| self.clock.mono() < *until)
    }

    fn token(&mut self, form: HashMap<String, String>) -> (u16, String) {
        self.asked.push(form.clone());
        let given = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if let Some(trouble) = &self.trouble {
            return trouble.clone();
        }
        let refused = |error: &str, words: &str| {
            (400, format!("{{\"error\":\"{error}\",\"error_description\":\"{words}\"}}"))
        };
        if given("client_id") != "posthouse" || given("client_secret") != self.secret {
            return refused("invalid_client", "unknown client");
        }
        match given("grant_type") {
            "client_credentials" if form.contains_key("refresh_token") => {
                return refused("invalid_request", "one grant at a time");
            }
            "client_credentials" => {}
            "refresh_token" if given("refresh_token") == self.refresh_token => {}
            "refresh_token" => return refused("invalid_grant", "Token has been expired or revoked."),
            _ => return refused("unsupported_grant_type", "no"),
        }
        let number = self.asked.len();
        let token = format!("access-{number}");
        self.tokens.insert(token.clone(), self.clock.mono().plus(Duration::from_secs(self.life)));
        let mut more = String::new();
        if self.rotates && given("grant_type") == "refresh_token" {
            self.refresh_token = format!("refresh-{number}");
            more = format!(",\"refresh_token\":\"{}\"", self.refresh_token);
        }
        let life = self.life;
        (
            200,
            format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":{life}{more}}}"),
        )
    }

    fn introspect(&self, form: &HashMap<String, String>) -> (u16, String) {
        let token = form.get("token").map(String::as_str).unwrap_or_default();
        (
            200,
            match self.is_good(token) {
                true => {
                    "{\"active\":true,\"username\":\"me@example.com\",\"email\":\"me@example.com\"}".into()
                }
                false => "{\"active\":false}".into(),
            },
        )
    }
}

/// The server. Stops when dropped.
pub(crate) struct TokenServer {
    /// Where it speaks TLS.
    pub(crate) at: SocketAddr,
    /// Where it is asked about tokens, in the clear.
    pub(crate) introspection: SocketAddr,
    state: Arc<Mutex<State>>,
    tasks: Vec<JoinHandle<()>>,
}

impl TokenServer {
    pub(crate) async fn new(tls: &TlsAcceptor) -> Self {
        let state = State {
            clock: Clock::system(),
            life: 3600,
            rotates: false,
            trouble: None,
            slow: Duration::ZERO,
            refresh_token: "refresh-0".into(),
            secret: "top secret&".into(),
            tokens: HashMap::new(),
            asked: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let mut server = Self {
            at: "0.0.0.0:0".parse().unwrap(),
            introspection: "0.0.0.0:0".parse().unwrap(),
            state,
            tasks: Vec::new(),
        };
        server.at = server.listen(Some(tls.clone())).await;
        server.introspection = server.listen(None).await;
        server
    }

    async fn listen(&mut self, tls: Option<TlsAcceptor>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let state = self.state.clone();
        self.tasks.push(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (state.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                        None => {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                });
            }
        }));
        at
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/oauth2/token?tenant=x", self.at)
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// How often it was asked for a token.
    pub(crate) fn asked(&self) -> usize {
        self.with(|state| state.asked.len())
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<State>> {
        self.state.clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let kind = request.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let form = decode(std::str::from_utf8(&body).unwrap());
    let slow = state.lock().slow;
    tokio::time::sleep(slow).await;
    let (status, body) = match path.as_str() {
        "/oauth2/token" => {
            assert_eq!(
                (kind.as_deref(), query.as_str()),
                (Some("application/x-www-form-urlencoded"), "tenant=x")
            );
            state.lock().token(form)
        }
        "/introspect" => state.lock().introspect(&form),
        _ => (404, "not here".into()),
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap())
}

fn decode(form: &str) -> HashMap<String, String> {
    let word = |text: &str| {
        let mut octets = Vec::new();
        let mut rest = text.bytes();
        while let Some(octet) = rest.next() {
            octets.push(match octet {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            });
        }
        String::from_utf8(octets).unwrap()
    };
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (word(name), word(value)))
        .collect()
}
