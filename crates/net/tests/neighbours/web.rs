//! A web server for MTA-STS policies, as good or bad as a test wants it.

#![allow(dead_code, reason = "the tests of delivery use it, too; not all do everything")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mail::Clock;
use net::{CertificateSource, ServerTls, ServerTlsConfig, Stream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn policy(mode: &str, mx: &str, max_age_s: u32) -> Self {
        let body = format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {max_age_s}\r\n");
        Self { status: 200, kind: "text/plain", body }
    }
}

/// The server.
pub(crate) struct Web {
    pub(crate) at: SocketAddr,
    page: Arc<Mutex<Page>>,
    others: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Web {
    /// Serves `page` with this certificate.
    pub(crate) async fn serve(certificate: &Path, key: &Path, page: Page) -> Self {
        let source = CertificateSource::Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let config = ServerTlsConfig {
            hostname: "web.test".into(),
            data_dir: key.parent().unwrap().join("web"),
            source,
        };
        let tls = ServerTls::open(config, Clock::system()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let page = Arc::new(Mutex::new(page));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let others = Arc::new(Mutex::new(HashMap::<String, Page>::new()));
        let (pages, by_host, log) = (page.clone(), others.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, page, log) = (tls.clone(), pages.clone(), log.clone());
                let by_host = by_host.clone();
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(Stream::Tcp(tcp), Duration::from_secs(10)).await else {
                        return;
                    };
                    let answer = service_fn(move |request: Request<_>| {
                        let host = request.headers()["host"].to_str().unwrap().to_owned();
                        log.lock().unwrap().push(format!("{host} {}", request.uri()));
                        let name = host.split(':').next().unwrap().to_owned();
                        let own = by_host.lock().unwrap().get(&name).cloned();
                        let page = own.unwrap_or_else(|| page.lock().unwrap().clone());
                        async move { Ok::<_, Infallible>(response(request, page)) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { at, page, others, asked, task }
    }

    /// Answers so from now on.
    pub(crate) fn set(&self, page: Page) {
        *self.page.lock().unwrap() = page;
    }

    /// Answers so to who asks for this host.
    pub(crate) fn set_for(&self, host: &str, page: Page) {
        self.others.lock().unwrap().insert(host.to_owned(), page);
    }

    /// What it was asked so far: host and path.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn response(_: Request<hyper::body::Incoming>, page: Page) -> Response<Full<Bytes>> {
    Response::builder()
        .status(page.status)
        .header("content-type", page.kind)
        .header("location", "https://elsewhere.test/policy")
        .body(Full::new(page.body.into()))
        .unwrap()
}
