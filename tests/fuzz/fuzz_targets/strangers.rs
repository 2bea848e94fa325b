//! Every parser that strangers reach. One program, since building is what costs; the first byte of an input
//! says which parser the rest is for, as the folders of the corpus do.

#![no_main]

use broadgate_gateway::{apps::{App, Apps}, fuzz};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    match first {
        b'c' => fuzz::codec(rest),
        b'p' => fuzz::pusher(rest),
        b'a' => fuzz::api(rest),
        b'r' => fuzz::request(rest),
        b'j' => fuzz::command(rest),
        b't' => apps(rest),
        _ => {}
    }
});

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    apps: Vec<App>,
}

/// A file of apps.
fn apps(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(file) = toml::from_str::<File>(text) {
        let _ = Apps::new(file.apps);
    }
}
