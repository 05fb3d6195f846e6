//! A responder for one page, inside somebody else's event loop. It never waits: what is not there
//! yet, or does not fit yet, is taken up when the descriptor is ready again.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::{Doing, Error, Result};
use crate::model::Ktime;

/// Connections at a time; one more takes the place of the oldest.
const MOST_CLIENTS: usize = 16;

/// Longest request; a scraper's has some hundred bytes.
const LONGEST_REQUEST: usize = 8 * 1024;

/// A client that is not done by then is let go.
const PATIENCE: Duration = Duration::from_secs(10);

const LISTENER: u64 = 0;

#[derive(Debug)]
struct Client {
    token: u64,
    stream: TcpStream,
    since: Ktime,
    request: Vec<u8>,
    /// What is still to be sent; empty until the request is whole.
    response: Vec<u8>,
    sent: usize,
}

/// Serves `GET /metrics`. Readable whenever [`Server::serve`] has something to do.
#[derive(Debug)]
pub struct Server {
    epoll: Epoll,
    listener: TcpListener,
    clients: Vec<Client>,
    next_token: u64,
}

impl Server {
    /// # Errors
    /// World's, if the address is taken or not this host's yet: either may pass. Otherwise operator's.
    pub fn listen(address: SocketAddr) -> Result<Self> {
        let refused = |error: std::io::Error| {
            let text = format!("--metrics-listen {address}: {error}; give another address or port");
            let passes = matches!(
                error.kind(),
                ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
            );
            if passes {
                Error::world(text)
            } else {
                Error::operator(text)
            }
        };
        let listener = TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let doing = || "preparing to serve metrics";
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(doing)?;
        epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
            .doing(doing)?;
        Ok(Self {
            epoll,
            listener,
            clients: Vec::new(),
            next_token: LISTENER + 1,
        })
    }

    /// Where it listens; tells the port if 0 was asked for.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .doing(|| "asking where metrics are served")
    }

    /// Goes on with everything that is ready. A client's error ends that client only.
    pub fn serve(&mut self, now: Ktime, page: &dyn Fn() -> String) -> Result<()> {
        let mut ready = [EpollEvent::empty(); MOST_CLIENTS + 1];
        let count = match self.epoll.wait(&mut ready, EpollTimeout::ZERO) {
            Err(nix::errno::Errno::EINTR) => 0,
            result => result.doing(|| "waiting for metrics clients")?,
        };
        for event in ready.iter().take(count) {
            if event.data() == LISTENER {
                self.accept(now);
            } else {
                self.go_on(event.data(), page);
            }
        }
        Ok(())
    }

    /// Lets go of clients that were given enough time.
    pub fn lose_patience(&mut self, now: Ktime) {
        self.clients
            .retain(|client| now.since(client.since) < PATIENCE);
    }

    /// At most one round of new clients; the rest wait in the kernel's queue.
    fn accept(&mut self, now: Ktime) {
        for _ in 0..MOST_CLIENTS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::debug!("a metrics client did not get in: {error}");
                    }
                    return;
                }
            };
            let token = self.next_token;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            if stream.set_nonblocking(true).is_err() || self.epoll.add(&stream, event).is_err() {
                continue;
            }
            self.next_token += 1;
            if self.clients.len() == MOST_CLIENTS {
                // They are in the order they came. Closing takes a descriptor out of the epoll.
                self.clients.remove(0);
            }
            self.clients.push(Client {
                token,
                stream,
                since: now,
                request: Vec::new(),
                response: Vec::new(),
                sent: 0,
            });
        }
    }

    fn go_on(&mut self, token: u64, page: &dyn Fn() -> String) {
        let Some(index) = self.clients.iter().position(|client| client.token == token) else {
            return;
        };
        let client = &mut self.clients[index];
        if client.response.is_empty() {
            match client.receive() {
                Received::More => {}
                Received::Gone => drop(self.clients.remove(index)),
                Received::Whole(asked) => {
                    client.response = answer(&asked, page);
                    self.send(index);
                }
            }
        } else {
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        loop {
            match client.stream.write(&client.response[client.sent..]) {
                Ok(0) => break,
                Ok(count) => {
                    client.sent += count;
                    if client.sent == client.response.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut event = EpollEvent::new(EpollFlags::EPOLLOUT, client.token);
                    if self.epoll.modify(&client.stream, &mut event).is_ok() {
                        return;
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        self.clients.remove(index);
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Page { body: bool },
    Elsewhere,
    OtherMethod,
    Nonsense,
    TooLong,
}

enum Received {
    More,
    Gone,
    Whole(Asked),
}

impl Client {
    fn receive(&mut self) -> Received {
        let mut bytes = [0; 2048];
        match self.stream.read(&mut bytes) {
            Ok(0) => Received::Gone,
            Ok(count) => {
                self.request.extend_from_slice(&bytes[..count]);
                asked(&self.request).map_or(Received::More, Received::Whole)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Received::More
            }
            Err(_) => Received::Gone,
        }
    }
}

/// `None` while the head of the request is not whole.
fn asked(bytes: &[u8]) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() > LONGEST_REQUEST => Some(Asked::TooLong),
        Ok(httparse::Status::Partial) => None,
        Err(httparse::Error::TooManyHeaders) => Some(Asked::TooLong),
        Err(_) => Some(Asked::Nonsense),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default();
            Some(match request.method {
                Some("GET" | "HEAD") if path != "/metrics" => Asked::Elsewhere,
                Some("GET") => Asked::Page { body: true },
                Some("HEAD") => Asked::Page { body: false },
                _ => Asked::OtherMethod,
            })
        }
    }
}

fn answer(asked: &Asked, page: &dyn Fn() -> String) -> Vec<u8> {
    let plain = |status, text: &str| response(status, "text/plain; charset=utf-8", text, true);
    match asked {
        Asked::Page { body } => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            response("200 OK", kind, &page(), *body)
        }
        Asked::Elsewhere => plain("404 Not Found", "metrics are at /metrics\n"),
        Asked::OtherMethod => plain("405 Method Not Allowed", "ask with GET\n"),
        Asked::Nonsense => plain("400 Bad Request", "this is no HTTP request\n"),
        Asked::TooLong => plain(
            "431 Request Header Fields Too Large",
            "the request is too long\n",
        ),
    }
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let length = body.len();
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    if with_body {
        text.push_str(body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (Server, SocketAddr) {
        let server = Server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.address().unwrap();
        assert!(address.ip().is_loopback());
        (server, address)
    }

    /// Blocks until the server has something to do, then lets it do it.
    fn turn(server: &mut Server, page: &dyn Fn() -> String) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(server.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        server.serve(Ktime::from_secs(1), page).unwrap();
    }

    fn exchange(request: &str) -> String {
        let (mut server, address) = server();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        turn(&mut server, &|| "k 1\n".to_owned());
        while !server.clients.is_empty() {
            turn(&mut server, &|| "k 1\n".to_owned());
        }
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_page_is_served_whole_and_the_connection_closed() {
        assert_eq!(
            exchange("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: 4\r\nConnection: close\r\n\r\nk 1\n"
        );
        let head = exchange("HEAD /metrics HTTP/1.0\r\n\r\n");
        assert!(
            head.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn what_is_no_scrape_is_told_so() {
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(9000));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("\u{16}\u{3}\u{1} hello\r\n\r\n", "400 Bad Request"),
            (&long, "431 Request"),
            (&many, "431 Request"),
        ] {
            let text = exchange(request);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status}")),
                "{request}: {text}"
            );
        }
    }

    #[test]
    fn a_request_in_pieces_is_put_together() {
        let (mut server, address) = server();
        let mut client = TcpStream::connect(address).unwrap();
        let page = || "k 1\n".to_owned();
        turn(&mut server, &page);
        for piece in ["GET /met", "rics HT", "TP/1.1\r\n\r", "\n"] {
            client.write_all(piece.as_bytes()).unwrap();
            turn(&mut server, &page);
        }
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("\r\n\r\nk 1\n"), "{text}");
    }

    #[test]
    fn clients_that_do_not_read_hold_nobody_up_and_are_let_go() {
        let (mut server, address) = server();
        // More than any socket buffer takes, so that sending must stop half way.
        let page = || "k 1\n".repeat(4 << 20);
        let mut slow: Vec<TcpStream> = Vec::new();
        for _ in 0..MOST_CLIENTS + 4 {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            slow.push(client);
            turn(&mut server, &page);
            turn(&mut server, &page);
        }
        assert_eq!(server.clients.len(), MOST_CLIENTS);
        assert!(
            server
                .clients
                .iter()
                .all(|client| client.sent < client.response.len())
        );
        let mut good = TcpStream::connect(address).unwrap();
        good.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let small = || "k 1\n".to_owned();
        turn(&mut server, &small);
        turn(&mut server, &small);
        let mut text = String::new();
        good.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("k 1\n"), "{text}");
        server.lose_patience(Ktime::from_secs(10));
        assert!(!server.clients.is_empty());
        server.lose_patience(Ktime::from_secs(11));
        assert!(server.clients.is_empty());
    }

    #[test]
    fn an_address_that_is_taken_or_not_there_yet_is_the_worlds() {
        let (_server, taken) = server();
        // 192.0.2.0/24 is nobody's.
        for address in [taken, "192.0.2.1:0".parse().unwrap()] {
            let error = Server::listen(address).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{error}");
            let told = format!("--metrics-listen {address}: ");
            assert!(error.to_string().starts_with(&told), "{error}");
        }
    }
}
