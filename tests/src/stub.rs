//! A small HTTP server that answers as a test wants, also badly: late, not at all, half of it, nonsense; over TLS, too.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::authority::Authority;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Names and values, decoded.
    pub query: Vec<(String, String)>,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// What the server does with a request.
pub enum Reply {
    Json(u16, Value),
    /// A status with Retry-After, in seconds or as a date.
    Later(u16, String),
    /// A redirection to this address.
    Moved(String),
    /// A body that is no JSON.
    Text(u16, String),
    /// Half of the body that was announced.
    Half(Value),
    /// Closes without a word.
    Cut,
    /// Waits first.
    Slow(Duration, Box<Reply>),
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; it stops when the value goes.
pub struct Stub {
    address: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
}

impl Stub {
    /// Starts a server that answers by `handler`.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    /// Starts a server that speaks HTTPS only, with a certificate for 127.0.0.1 that `authority` has signed.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start_tls(authority: &Authority, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Some(authority.server()), handler)
    }

    fn start_with(tls: Option<Arc<ServerConfig>>, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (log, stop) = (Arc::clone(&requests), Arc::clone(&stopped));
        let handler: Arc<Handler> = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (log, handler, tls) = (Arc::clone(&log), Arc::clone(&handler), tls.clone());
                thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                    match tls.map(ServerConnection::new) {
                        None => serve(stream, &log, handler.as_ref()),
                        Some(Ok(session)) => serve(StreamOwned::new(session, stream), &log, handler.as_ref()),
                        Some(Err(_)) => {}
                    }
                });
            }
        });
        Stub {
            address,
            scheme,
            requests,
            stopped,
        }
    }

    /// Its base address, with a path.
    pub fn base(&self) -> String {
        format!("{}://{}/base", self.scheme, self.address)
    }

    /// How many requests came so far.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the list.
    pub fn count(&self) -> usize {
        self.requests.lock().expect("nothing panics while it holds this").len()
    }

    /// All requests so far.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the list.
    pub fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .expect("nothing panics while it holds this")
            .clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: impl Read + Write, log: &Mutex<Vec<Request>>, handler: &Handler) {
    let Some(request) = read(&mut stream) else { return };
    if let Ok(mut log) = log.lock() {
        log.push(request.clone());
    }
    let mut reply = handler(&request);
    while let Reply::Slow(time, then) = reply {
        thread::sleep(time);
        reply = *then;
    }
    let text = match reply {
        Reply::Json(status, body) => answer(status, "", &body.to_string(), None),
        Reply::Later(status, when) => answer(
            status,
            &format!("Retry-After: {when}\r\n"),
            "{\"error\":\"later\"}",
            None,
        ),
        Reply::Moved(address) => answer(302, &format!("Location: {address}\r\n"), "", None),
        Reply::Text(status, body) => answer(status, "", &body, None),
        Reply::Half(body) => {
            let body = body.to_string();
            let mut half = body.len() / 2;
            while !body.is_char_boundary(half) {
                half -= 1;
            }
            answer(200, "", &body[..half], Some(body.len()))
        }
        Reply::Cut | Reply::Slow(..) => return,
    };
    // The client may have gone.
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

fn answer(status: u16, headers: &str, body: &str, length: Option<usize>) -> String {
    format!(
        "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        length.unwrap_or(body.len())
    )
}

fn read(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = split_target(&target);
    Some(Request {
        method,
        path: path.to_owned(),
        query,
        headers,
        body: String::from_utf8(body).ok()?,
        at: Instant::now(),
    })
}

/// The path of a request's target, and its parameters, decoded.
pub fn split_target(target: &str) -> (&str, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect();
    (path, query)
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
