//! The suite over an HTTP endpoint, and what only HTTP has: statuses, redirects, hostile replies, names that lead inside.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gravity_conformance::export_suite::{
    Arrived, ExportRig, assert_order_per_key, is_delivered, key_in_body, kind, numbered,
};
use gravity_conformance::local_http::{LocalHttp, Reply, Request};
use gravity_connectors::http::{HttpExporter, HttpExporterOptions, Limits, Lookup};
use gravity_model::FaultKind;
use gravity_model::port::export::{Delivery, Exporter, Message};

struct HttpRig(LocalHttp);

async fn rig() -> Option<HttpRig> {
    Some(HttpRig(LocalHttp::start(refuses_marked).await))
}

fn refuses_marked(request: &Request) -> Reply {
    if request.body.starts_with(b"{\"refuse\"") { Reply::Status(422) } else { Reply::Status(204) }
}

fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        headers: Duration::from_millis(400),
        body: Duration::from_millis(300),
        in_flight: 32,
    }
}

fn options(url: &str) -> HttpExporterOptions {
    HttpExporterOptions { url: url.to_owned(), limits: quick(), ..HttpExporterOptions::default() }
}

fn exporter(url: &str) -> HttpExporter {
    HttpExporter::new("hook", &options(url)).expect("valid options")
}

#[async_trait]
impl ExportRig for HttpRig {
    fn exporter(&self) -> Box<dyn Exporter> {
        Box::new(
            HttpExporter::new("hook", &HttpExporterOptions { limits: Limits::default(), ..options(&self.0.url()) })
                .expect("valid options"),
        )
    }

    fn refusable(&self, number: u64, key: &str) -> Message {
        Message { body: format!("{{\"refuse\":{number}}}").into(), ..numbered(number, Some(key)) }
    }

    fn misplaced(&self) -> Box<dyn Exporter> {
        self.0.behave(|_| Reply::Status(404));
        Box::new(exporter(&self.0.url()))
    }

    fn unreachable(&self) -> Box<dyn Exporter> {
        Box::new(exporter("http://127.0.0.1:1/hook"))
    }

    async fn arrived(&self) -> Vec<Arrived> {
        let arrived = |request: Request| Arrived {
            id: request.header("idempotency-key").expect("every message names its id").to_owned(),
            key: None,
            body: request.body.clone(),
            headers: request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
        };
        self.0.accepted().into_iter().filter(|request| request.method == "POST").map(arrived).collect()
    }
}

gravity_conformance::export_suite!(rig);

async fn post_once(server: &LocalHttp) -> Delivery {
    exporter(&server.url()).export(&[numbered(1, Some("a"))]).await.remove(0)
}

/// SEMANTICS 5.4, over the wire.
#[tokio::test]
async fn o44_the_status_decides() {
    let server = LocalHttp::start(|_| Reply::Status(200)).await;
    let table = [
        (200, None),
        (201, None),
        (202, None),
        (204, None),
        (301, Some(FaultKind::Misconfigured)),
        (302, Some(FaultKind::Misconfigured)),
        (307, Some(FaultKind::Misconfigured)),
        (400, Some(FaultKind::RefusedEvent)),
        (401, Some(FaultKind::Misconfigured)),
        (403, Some(FaultKind::Misconfigured)),
        (404, Some(FaultKind::Misconfigured)),
        (405, Some(FaultKind::Misconfigured)),
        (408, Some(FaultKind::Transient)),
        (409, Some(FaultKind::Transient)),
        (410, Some(FaultKind::Misconfigured)),
        (413, Some(FaultKind::RefusedEvent)),
        (422, Some(FaultKind::RefusedEvent)),
        (425, Some(FaultKind::Transient)),
        (429, Some(FaultKind::Transient)),
        (500, Some(FaultKind::Transient)),
        (503, Some(FaultKind::Transient)),
    ];
    for (status, expected) in table {
        server.behave(move |_| Reply::Full(status, Vec::new(), b"because\x1b[31m".to_vec()));
        let outcome = post_once(&server).await;
        match expected {
            None => assert!(is_delivered(&outcome), "{status}: {outcome:?}"),
            Some(expected) => {
                assert_eq!(kind(&outcome), expected, "{status}");
                let Delivery::Failed { fault, .. } = &outcome else { unreachable!("kind passed") };
                assert_eq!(fault.code, status.to_string());
                assert!(!fault.to_string().contains('\x1b'), "T23: replies are escaped: {fault}");
                assert!(fault.detail.contains("because"), "{fault}");
            }
        }
    }
}

#[tokio::test]
async fn retry_after_is_told_and_capped() {
    let server = LocalHttp::start(|_| Reply::Status(200)).await;
    for (status, value, expected) in [
        (429, "3", Some(Duration::from_secs(3))),
        (503, "86400", Some(Duration::from_secs(3600))),
        (503, "soon", None),
        (400, "3", None),
    ] {
        server.behave(move |_| Reply::Full(status, vec![("Retry-After".to_owned(), value.to_owned())], Vec::new()));
        let Delivery::Failed { retry_after, .. } = post_once(&server).await else { panic!("{status} is no success") };
        assert_eq!(retry_after, expected, "{status} {value}");
    }
}

#[tokio::test]
async fn e4_a_redirect_is_not_followed() {
    let inner = LocalHttp::start(|_| Reply::Status(200)).await;
    let to = inner.url();
    let server =
        LocalHttp::start(move |_| Reply::Full(307, vec![("Location".to_owned(), to.clone())], Vec::new())).await;
    let outcome = post_once(&server).await;
    assert_eq!(kind(&outcome), FaultKind::Misconfigured, "{outcome:?}");
    assert_eq!(inner.connections(), 0, "the redirect's target was never reached");
}

#[tokio::test]
async fn e4_a_silent_endpoint_has_a_time_limit() {
    let server = LocalHttp::start(|_| Reply::Silent).await;
    let begun = Instant::now();
    let outcome = post_once(&server).await;
    assert_eq!(kind(&outcome), FaultKind::Transient, "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.requests().len(), 1, "the message may have arrived: it goes again with the same id");
}

#[tokio::test]
async fn e4_a_slow_reply_within_the_limit_counts() {
    let server = LocalHttp::start(|_| Reply::Late(Duration::from_millis(150), 200)).await;
    assert!(is_delivered(&post_once(&server).await));
}

#[tokio::test]
async fn e4_a_reply_of_ten_gigabytes_is_cut() {
    for status in [200, 500] {
        let server = LocalHttp::start(move |_| Reply::Endless(status)).await;
        let begun = Instant::now();
        let outcome = post_once(&server).await;
        assert_eq!(is_delivered(&outcome), status == 200, "{outcome:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
        let taken = server.body_bytes();
        // 64 KiB by us; the rest is what both systems' socket buffers hold.
        assert!(taken < 16 << 20, "{taken} bytes of the body were taken");
        let after = server.body_bytes();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(server.body_bytes(), after, "the connection is closed");
    }
}

#[tokio::test]
async fn e4_a_body_that_trickles_is_cut() {
    for status in [200, 503] {
        let server = LocalHttp::start(move |_| Reply::Trickle(status)).await;
        let begun = Instant::now();
        assert_eq!(is_delivered(&post_once(&server).await), status == 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_is_unknown() {
    let server = LocalHttp::start(|_| Reply::HangUp).await;
    let outcome = post_once(&server).await;
    assert_eq!(kind(&outcome), FaultKind::Disconnected, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_keys_go_in_parallel_and_one_key_in_order() {
    let server = LocalHttp::start(|_| Reply::Late(Duration::from_millis(30), 200)).await;
    let rig = HttpRig(server);
    let messages: Vec<Message> = (0..320).map(|number| numbered(number, Some(&format!("k{}", number % 32)))).collect();
    let begun = Instant::now();
    assert!(exporter(&rig.0.url()).export(&messages).await.iter().all(is_delivered));
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_millis(320 * 30 / 4), "in parallel: {elapsed:?}");
    let most = rig.0.most_under_way();
    assert!((2..=32).contains(&most), "bounded: {most}");
    assert_order_per_key(&rig.arrived().await, key_in_body);
}

/// P6: a dead endpoint is not knocked at once for every key.
#[tokio::test]
async fn a_failing_endpoint_is_spared() {
    let server = LocalHttp::start(|_| Reply::Status(503)).await;
    let messages: Vec<Message> = (0..1000).map(|number| numbered(number, Some(&format!("k{number}")))).collect();
    let outcomes = exporter(&server.url()).export(&messages).await;
    assert_eq!(outcomes.len(), 1000);
    assert!(!outcomes.iter().any(is_delivered));
    assert!(server.requests().len() <= 32, "{} requests", server.requests().len());
}

/// O44: failures leave no sockets behind.
#[tokio::test]
async fn o44_many_failures_leave_sockets_flat() {
    let server =
        LocalHttp::start(|request| if request.body.len() % 2 == 0 { Reply::Status(500) } else { Reply::HangUp }).await;
    let exporter = exporter(&server.url());
    // Of this test's own server only: other tests of the process open sockets at the same time.
    let open = || sockets_towards(server.address.port());
    let run = async |from: u64, to: u64| {
        for number in from..to {
            let key = if number % 2 == 0 { "a" } else { "bb" };
            assert!(!is_delivered(&exporter.export(&[numbered(number, Some(key))]).await[0]));
        }
    };
    run(0, 200).await;
    let before = open();
    run(200, 3000).await;
    let after = open();
    assert!(after <= before + 20, "sockets: {before}, then {after}");
}

/// Sockets that some process holds and whose other end is this local port, in whatever state (`/proc/net/tcp`).
fn sockets_towards(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
    let other_end = format!(":{port:04X}");
    let held = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2).is_some_and(|end| end.ends_with(&other_end)) && fields.get(9).is_some_and(|inode| *inode != "0")
    };
    table.lines().skip(1).filter(held).count()
}

/// A resolver that answers from a list, the last entry for ever.
struct Names {
    answers: Vec<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, _name: &str) -> io::Result<Vec<SocketAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[asked.min(self.answers.len() - 1)].clone())
    }
}

fn named(answers: Vec<Vec<SocketAddr>>) -> Arc<Names> {
    Arc::new(Names { answers, asked: AtomicUsize::new(0) })
}

#[tokio::test]
async fn t6_a_name_that_leads_inside_is_refused() {
    let server = LocalHttp::start(|_| Reply::Status(200)).await;
    let url = format!("http://hook.example:{}/", server.address.port());
    let inside = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1", "::1", "fd00::1", "::ffff:127.0.0.1"];
    for address in inside {
        let address: SocketAddr = SocketAddr::new(address.parse().expect("address"), 0);
        // Also when a public address stands beside it.
        for answer in [vec![address], vec![SocketAddr::from(([8, 8, 8, 8], 0)), address]] {
            let exporter = HttpExporter::with_lookup("hook", &options(&url), named(vec![answer])).expect("options");
            let outcome = exporter.export(&[numbered(1, Some("a"))]).await.remove(0);
            assert_eq!(kind(&outcome), FaultKind::Misconfigured, "{address}: {outcome:?}");
            let Delivery::Failed { fault, .. } = &outcome else { unreachable!("kind passed") };
            assert_eq!(fault.code, "private-address");
            assert!(fault.detail.contains("allow_private"), "{fault}");
        }
    }
    assert_eq!(server.connections(), 0, "nothing was connected");
    // The system's own resolver.
    let local = format!("http://localhost:{}/", server.address.port());
    assert_eq!(kind(&exporter(&local).export(&[numbered(1, None)]).await[0]), FaultKind::Misconfigured);
    assert_eq!(server.connections(), 0);
    let allowed = HttpExporterOptions { allow_private: true, ..options(&local) };
    let allowed = HttpExporter::new("hook", &allowed).expect("options");
    assert!(is_delivered(&allowed.export(&[numbered(1, None)]).await[0]));
}

/// Rebinding: every connection asks once, checks that answer and uses that answer.
#[tokio::test]
async fn t6_a_name_that_changes_its_mind_is_checked_each_time() {
    let server = LocalHttp::start(|_| Reply::HangUp).await;
    let url = format!("http://hook.example:{}/", server.address.port());
    let here = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    // First somewhere outside where nobody answers (a network for documentation), then inside.
    let outside = vec![SocketAddr::from(([203, 0, 113, 1], 0))];
    let names = named(vec![outside, here.clone()]);
    let limits = Limits { connect: Duration::from_millis(300), ..quick() };
    let exporter = HttpExporter::with_lookup(
        "hook",
        &HttpExporterOptions { limits, ..options(&url) },
        Arc::clone(&names) as Arc<dyn Lookup>,
    )
    .expect("options");
    assert!(!is_delivered(&exporter.export(&[numbered(1, None)]).await[0]));
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "asked once for one connection");
    assert_eq!(kind(&exporter.export(&[numbered(1, None)]).await[0]), FaultKind::Misconfigured);
    assert_eq!(server.connections(), 0, "the second answer was checked too");
    // Allowed: the address that was checked is the one that is connected.
    let names = named(vec![here]);
    let allowed = HttpExporterOptions { allow_private: true, ..options(&url) };
    let exporter = HttpExporter::with_lookup("hook", &allowed, Arc::clone(&names) as Arc<dyn Lookup>).expect("options");
    assert!(!is_delivered(&exporter.export(&[numbered(1, None)]).await[0]));
    assert_eq!((names.asked.load(Ordering::SeqCst), server.connections()), (1, 1));
}

/// A proxy in the environment must not see a message. Run in a process of its own, whose environment names one.
#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let Ok(url) = std::env::var("GRAVITY_TEST_POST_TO") else {
        let (server, proxy) =
            (LocalHttp::start(|_| Reply::Status(200)).await, LocalHttp::start(|_| Reply::Status(200)).await);
        let program = std::env::current_exe().expect("this program");
        let through = format!("http://{}", proxy.address);
        let child = tokio::process::Command::new(program)
            .args(["proxies_of_the_environment_are_ignored", "--nocapture"])
            .env("GRAVITY_TEST_POST_TO", server.url())
            .envs([
                ("http_proxy", &through),
                ("HTTP_PROXY", &through),
                ("ALL_PROXY", &through),
                ("all_proxy", &through),
            ])
            .output()
            .await
            .expect("run");
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        assert_eq!((server.requests().len(), proxy.connections()), (1, 0));
        return;
    };
    assert!(is_delivered(&exporter(&url).export(&[numbered(1, None)]).await[0]));
}
