//! By the Pusher HTTP API, as an app's backend does it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use broadgate::{apps::Source, failure::Failure};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use serde_json::json;
use sha2::Sha256;

use crate::{
    engine::{now_ns, payload},
    publish::to::{Publisher, To},
};

/// The hosted service takes as many events in one call.
const BATCH_EVENTS_MAX: u64 = 10;
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

pub(super) struct Api<'a> {
    to: To<'a>,
    stream: BufReader<TcpStream>,
    /// Several events go in one `batch_events`; else each in an `events` of its own.
    is_batch: bool,
    path: String,
    key: String,
    secret: String,
}

impl<'a> Api<'a> {
    pub(super) fn open(to: To<'a>, is_batch: bool) -> Result<Self, Failure> {
        let Some(file) = &to.sender.apps.clone().or_else(|| broadgate::environment::path("APPS")) else {
            return Err(Failure::usage(
                "--publish api and --publish events need --apps FILE with the app's key and secret",
            ));
        };
        let source = Source { config: None, apps: Some(file.clone()), raw: Vec::new() };
        let apps = source.read(&mut Vec::new()).and_then(|reading| reading.open()).map_err(Failure::Usage)?;
        let table = apps.load();
        let Some(app) = table.by_id(&to.sender.app) else {
            return Err(Failure::usage(format!(
                "--app {}: {} has no such app",
                to.sender.app,
                file.display()
            )));
        };
        let Some(key) = app.keys.first() else {
            return Err(Failure::usage(format!("--app {}: it has no key", to.sender.app)));
        };
        let stream = TcpStream::connect(to.target.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        let path = format!("/apps/{}/{}", app.id, if is_batch { "batch_events" } else { "events" });
        let (key, secret) = (key.key.clone(), key.secret.reveal().to_owned());
        Ok(Self { to, stream: BufReader::new(stream), is_batch, path, key, secret })
    }

    fn request(&self, body: &str) -> Result<String, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let query = query(&self.path, body, &self.key, &self.secret, now)?;
        Ok(format!(
            "POST {}?{query} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.path,
            self.to.target.host,
            body.len()
        ))
    }

    fn post(&mut self, body: &str) -> Result<(), Failure> {
        let request = self.request(body)?;
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let (mut status, mut len, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(Failure::Failed("the API has closed the connection".to_owned()));
            }
            if status.is_empty() {
                status = line.trim().to_owned();
            } else if line.trim().is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                len = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        if status.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        Err(Failure::Failed(format!("the API answered {status}: {}", String::from_utf8_lossy(&body))))
    }
}

impl Publisher for Api<'_> {
    fn batch_max(&self) -> u64 {
        if self.is_batch { BATCH_EVENTS_MAX } else { 1 }
    }

    fn publish(&mut self, numbers: std::ops::Range<u64>) -> Result<(), Failure> {
        let event = |number| {
            let data = payload::text(self.to.size, number, now_ns());
            json!({ "name": "bench", "channel": self.to.group(number), "data": data })
        };
        let events: Vec<_> = numbers.map(event).collect();
        if self.is_batch {
            return self.post(&json!({ "batch": events }).to_string());
        }
        events.iter().try_for_each(|event| self.post(&event.to_string()))
    }
}

/// The signed query of a POST.
fn query(path: &str, body: &str, key: &str, secret: &str, now: u64) -> Result<String, Failure> {
    let md5 = HEXLOWER.encode(&Md5::digest(body.as_bytes()));
    let query = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0&body_md5={md5}");
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let mac = mac.map_err(|error| Failure::Failed(format!("the app's secret: {error}")))?;
    let text = format!("POST\n{path}\n{query}");
    let signature = HEXLOWER.encode(&mac.chain_update(text.as_bytes()).finalize().into_bytes());
    Ok(format!("{query}&auth_signature={signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_request_is_signed_as_documented() {
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let (key, secret) = ("278d425bdf160c739803", "7ad3773142a6692b25b8");
        let query = query("/apps/3/events", body, key, secret, 1_353_088_179).unwrap();
        assert_eq!(
            query,
            "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }
}
