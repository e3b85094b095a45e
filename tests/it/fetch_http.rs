//! Files of the web, from servers that keep their word and servers that do not.

use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::environment::Environment;
use cooper::fetch::http::{Answer, Fetched, Fetcher, Patience, Validator, Wanted};
use cooper::mtime::Mtime;
use cooper::secret::Secret;

use crate::fetch_support::{Reply, Server, broken, reply};

const BODY: &[u8] = b"0123456789";

fn fetcher(variables: &[(&str, &str)]) -> Fetcher {
    let environment = Environment::with("/nowhere", variables.iter().copied());
    let long = Duration::from_secs(60);
    let patience = Patience { connect: long, silence: long, pause: Duration::ZERO, attempts: 3 };
    Fetcher::new(&environment).unwrap().with_patience(patience)
}

fn wanted<'a>(url: &'a str, directory: &'a Path) -> Wanted<'a> {
    Wanted { url, checksum: None, previous: None, authorization: None, directory }
}

async fn fetch(wanted: &Wanted<'_>) -> Result<Answer, Error> {
    fetcher(&[]).fetch(wanted, &Cancel::new(), &|_, _| {}).await
}

fn file(answer: Answer) -> Fetched {
    match answer {
        Answer::File(fetched) => fetched,
        Answer::NotModified => panic!("it should have come"),
    }
}

fn content(fetched: &Fetched) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(fetched.size).unwrap() + 1];
    let read = fetched.file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

/// Fetches `/f` of a server, and gives the content or the error's text.
async fn outcome(server: &Server) -> Result<Vec<u8>, String> {
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/f");
    let answer = fetch(&wanted(&url, folder.path())).await;
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something stayed behind");
    answer.map(|answer| content(&file(answer))).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_file_comes_with_all_that_is_known_of_it() {
    let headers = [("ETag", "\"a\""), ("Last-Modified", "Tue, 15 Nov 1994 12:45:26 GMT")];
    let server = Server::start(move |_, _| reply("200 OK", &headers, BODY)).await;
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("/d/f.txt?key=hunter2#part");
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |now, total| told.lock().unwrap().push((now, total));
    let answer = fetcher(&[]).fetch(&wanted(&url, folder.path()), &Cancel::new(), &progress).await.unwrap();
    let fetched = file(answer);
    assert_eq!(content(&fetched), BODY);
    assert_eq!((fetched.size, fetched.digest), (10, Digest::of(BODY)));
    assert_eq!(fetched.mtime, Some(Mtime { seconds: 784_903_526, nanoseconds: 0 }));
    let expected = Validator {
        etag: Some("\"a\"".into()),
        last_modified: Some("Tue, 15 Nov 1994 12:45:26 GMT".into()),
        digest: Digest::of(BODY),
    };
    assert_eq!(fetched.validator, expected);
    assert_eq!(fetched.file.metadata().unwrap().nlink(), 0);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    let told = told.into_inner().unwrap();
    assert_eq!((told.first(), told.last()), (Some(&(0, Some(10))), Some(&(10, Some(10)))));
    let [request] = &server.requests()[..] else { panic!("one request") };
    assert!(request.starts_with("GET /d/f.txt?key=hunter2 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{}\r\n", server.port())), "{request}");
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent() {
    let previous = Validator { etag: Some("W/\"a\"".into()), last_modified: None, digest: Digest::of(BODY) };
    for status in ["304 Not Modified", "200 OK"] {
        // The second kind of server knows tags only in its answers; the body would never end.
        let server = Server::start(move |_, _| match status {
            "200 OK" => Reply::Hang(b"HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 10\r\n\r\n".to_vec()),
            _ => reply(status, &[], b""),
        })
        .await;
        let (folder, url) = (tempfile::tempdir().unwrap(), server.url("/f"));
        let again = Wanted { previous: Some(&previous), ..wanted(&url, folder.path()) };
        assert!(matches!(fetch(&again).await, Ok(Answer::NotModified)), "{status}");
        assert!(server.requests()[0].contains("if-none-match: W/\"a\"\r\n"));
        let other = Digest::of(b"other").to_string();
        let error = fetch(&Wanted { checksum: Some(&other), ..again }).await.unwrap_err();
        assert!(error.to_string().contains(&other), "{error}");
    }
}

#[tokio::test]
async fn a_date_serves_where_there_is_no_tag() {
    let date = "Tue, 15 Nov 1994 12:45:26 GMT";
    let server = Server::start(move |_, _| reply("200 OK", &[], b"new")).await;
    let previous = Validator { etag: None, last_modified: Some(date.into()), digest: Digest::of(BODY) };
    let (folder, url) = (tempfile::tempdir().unwrap(), server.url("/f"));
    let answer = fetch(&Wanted { previous: Some(&previous), ..wanted(&url, folder.path()) }).await.unwrap();
    assert_eq!(content(&file(answer)), b"new");
    assert!(server.requests()[0].contains(&format!("if-modified-since: {date}\r\n")));
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let server = Server::start(|number, _| match number {
        0 => broken("200 OK", &[("ETag", "\"a\"")], &BODY[..4], 10),
        1 => broken("206 Partial Content", &[("Content-Range", "bytes 4-9/10")], &BODY[4..7], 6),
        _ => reply("206 Partial Content", &[("Content-Range", "bytes 7-9/10")], &BODY[7..]),
    })
    .await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
    let requests = server.requests();
    assert!(!requests[0].contains("range"));
    assert!(requests[1].contains("range: bytes=4-\r\n") && requests[1].contains("if-range: \"a\"\r\n"));
    assert!(requests[2].contains("range: bytes=7-\r\n"));
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_comes_whole() {
    let server = Server::start(|number, _| match number {
        0 => broken("200 OK", &[("ETag", "\"a\"")], b"old", 10),
        _ => reply("200 OK", &[("ETag", "\"b\"")], BODY),
    })
    .await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
}

#[tokio::test]
async fn without_a_strong_tag_it_begins_anew() {
    let server = Server::start(|number, _| match number {
        0 => broken("200 OK", &[("ETag", "W/\"a\"")], b"0123", 10),
        _ => reply("200 OK", &[], BODY),
    })
    .await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
    assert!(!server.requests()[1].contains("range"));
}

#[tokio::test]
async fn the_wrong_part_is_not_taken() {
    let server = Server::start(|number, _| match number {
        0 => broken("200 OK", &[("ETag", "\"a\"")], b"0123", 10),
        1 => reply("206 Partial Content", &[("Content-Range", "bytes 5-9/10")], b"56789"),
        _ => reply("200 OK", &[], BODY),
    })
    .await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
    assert!(!server.requests()[2].contains("range"));
}

#[tokio::test]
async fn a_transfer_that_always_breaks_fails_in_the_end() {
    let server = Server::start(|_, _| broken("200 OK", &[], b"0123", 10)).await;
    let error = outcome(&server).await.unwrap_err();
    assert!(error.contains("3 attempts"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn busy_servers_are_asked_again_and_others_are_not() {
    for status in ["429 Too Many Requests", "503 Service Unavailable", "500 Internal Server Error"] {
        let server = Server::start(move |number, _| match number {
            0 => reply(status, &[("Retry-After", "0")], b"later"),
            _ => reply("200 OK", &[], BODY),
        })
        .await;
        assert_eq!(outcome(&server).await.unwrap(), BODY, "{status}");
    }
    for status in ["404 Not Found", "403 Forbidden", "304 Not Modified", "501 Not Implemented"] {
        let server = Server::start(move |_, _| reply(status, &[], b"no")).await;
        let error = outcome(&server).await.unwrap_err();
        assert!(error.contains(status), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn redirects_are_followed_but_not_for_ever() {
    let server = Server::start(|_, request| match request.split(' ').nth(1).unwrap() {
        "/f" => reply("302 Found", &[("Location", "d/g?x=1")], b""),
        "/d/g?x=1" => reply("308 Permanent Redirect", &[("Location", "/h")], b""),
        _ => reply("200 OK", &[], BODY),
    })
    .await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
    let server = Server::start(|_, _| reply("301 Moved Permanently", &[("Location", "/f")], b"")).await;
    let error = outcome(&server).await.unwrap_err();
    assert!(error.contains("more than 10"), "{error}");
    assert_eq!(server.requests().len(), 11);
    let server = Server::start(|_, _| reply("302 Found", &[("Location", "file:///etc/passwd")], b"")).await;
    assert!(outcome(&server).await.unwrap_err().contains("`file:`"));
}

#[tokio::test]
async fn credentials_do_not_go_to_another_host() {
    let other = Server::start(|_, _| reply("200 OK", &[], BODY)).await;
    let location = format!("http://localhost:{}/g", other.port());
    let server = Server::start(move |_, request| match request.split(' ').nth(1).unwrap() {
        "/f" => reply("302 Found", &[("Location", "/here")], b""),
        _ => reply("302 Found", &[("Location", &location)], b""),
    })
    .await;
    let (folder, url, secret) = (tempfile::tempdir().unwrap(), server.url("/f"), Secret::new("Bearer hunter2".into()));
    fetch(&Wanted { authorization: Some(&secret), ..wanted(&url, folder.path()) }).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request.contains("authorization: Bearer hunter2\r\n")));
    assert!(!other.requests()[0].contains("hunter2"));
}

#[tokio::test]
async fn a_digest_decides() {
    let server = Server::start(|_, _| reply("200 OK", &[], BODY)).await;
    let (folder, url) = (tempfile::tempdir().unwrap(), server.url("/f"));
    let sha512 = "sha512:bb96c2fc40d2d54617d6f276febe571f623a8dadf0b734855299b0e107fda32cf6b69f2da32b36445d73690b93cbd0f7bfc20e0f7f28553d2a4428f23b716e90";
    for checksum in [Digest::of(BODY).to_string(), sha512.into()] {
        let answer = fetch(&Wanted { checksum: Some(&checksum), ..wanted(&url, folder.path()) }).await.unwrap();
        assert_eq!(file(answer).digest, Digest::of(BODY));
    }
    for checksum in [Digest::of(b"x").to_string(), sha512.replace("bb96", "bb97")] {
        let error = fetch(&Wanted { checksum: Some(&checksum), ..wanted(&url, folder.path()) }).await.unwrap_err();
        assert_eq!(error.code(), "fetch-failed");
        assert!(error.to_string().contains(&checksum), "{error}");
    }
}

#[tokio::test]
async fn what_was_compressed_on_the_way_is_unpacked() {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(BODY, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    let server = Server::start(move |_, _| reply("200 OK", &[("Content-Encoding", "gzip")], &packed)).await;
    assert_eq!(outcome(&server).await.unwrap(), BODY);
    let server = Server::start(|_, _| reply("200 OK", &[("Content-Encoding", "gzip")], BODY)).await;
    assert!(outcome(&server).await.unwrap_err().contains("gzip"));
}

#[tokio::test]
async fn proxies_are_asked_for_other_hosts() {
    let proxy = Server::start(|_, request| {
        let is_tunnel = request.starts_with("CONNECT");
        if is_tunnel { reply("407 Proxy Authentication Required", &[], b"") } else { reply("200 OK", &[], BODY) }
    })
    .await;
    let address = format!("http://me:hunter2@127.0.0.1:{}", proxy.port());
    let fetcher = fetcher(&[("HTTP_PROXY", &address), ("https_proxy", &address), ("NO_PROXY", "direct.test")]);
    let folder = tempfile::tempdir().unwrap();
    let answer = fetcher.fetch(&wanted("http://files.test/f?x", folder.path()), &Cancel::new(), &|_, _| {}).await;
    assert_eq!(content(&file(answer.unwrap())), BODY);
    let request = &proxy.requests()[0];
    assert!(request.starts_with("GET http://files.test/f?x HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("host: files.test\r\n"), "{request}");
    assert!(request.contains("proxy-authorization: Basic bWU6aHVudGVyMg==\r\n"), "{request}");
    let error = fetcher.fetch(&wanted("https://files.test/f", folder.path()), &Cancel::new(), &|_, _| {}).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("407") && error.contains("proxy 127.0.0.1") && !error.contains("hunter2"), "{error}");
    assert!(proxy.requests()[1].starts_with("CONNECT files.test:443 HTTP/1.1\r\n"), "{}", proxy.requests()[1]);
}

#[tokio::test]
async fn silence_ends_an_attempt_and_the_caller_ends_all() {
    let start = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123";
    let server = Server::start(|_, _| Reply::Hang(start.to_vec())).await;
    let (folder, url) = (tempfile::tempdir().unwrap(), server.url("/f"));
    let patience =
        Patience { silence: Duration::from_millis(20), pause: Duration::ZERO, attempts: 2, ..Patience::default() };
    let impatient = Fetcher::new(&Environment::with("/", [("A", "b")])).unwrap().with_patience(patience);
    let error = impatient.fetch(&wanted(&url, folder.path()), &Cancel::new(), &|_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("2 attempts"), "{error}");
    let cancel = Cancel::new();
    // The first bytes are there: the transfer is under way.
    let stop = |now, _| {
        if now > 0 {
            cancel.cancel();
        }
    };
    let error = fetcher(&[]).fetch(&wanted(&url, folder.path()), &cancel, &stop).await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn a_machine_without_certificates_is_told_so() {
    let server = Server::start(|_, _| reply("200 OK", &[], BODY)).await;
    let (folder, url) = (tempfile::tempdir().unwrap(), format!("https://127.0.0.1:{}/f", server.port()));
    let error = fetch(&wanted(&url, folder.path())).await.unwrap_err().to_string();
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
}

#[tokio::test]
async fn errors_show_no_secrets() {
    let server = Server::start(|_, _| reply("404 Not Found", &[], b"")).await;
    let url = format!("http://me:hunter2@127.0.0.1:{}/f?signature=hunter2", server.port());
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&wanted(&url, folder.path())).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}
