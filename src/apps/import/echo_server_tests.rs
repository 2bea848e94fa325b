use broadgate_gateway::apps::{App, Apps, KeySecret};
use serde_json::json;

use super::*;

/// What `laravel-echo-server init` writes, with two clients of the API and Redis as its README has it.
fn documented() -> Value {
    json!({
        "authHost": "http://app.test", "authEndpoint": "/broadcasting/auth",
        "clients": [
            { "appId": "1df2b6f1f2a7dc3e", "key": "fb1dc4d2a3f3b6fbd1c34f2c5e7fd3a1" },
            { "appId": "second", "key": "0b1dc4d2a3f3b6fbd1c34f2c5e7fd3a2" }
        ],
        "database": "redis",
        "databaseConfig": {
            "redis": { "port": "3001", "host": "redis.app.test", "keyPrefix": "laravel_database_" },
            "sqlite": { "databasePath": "/database/laravel-echo-server.sqlite" }
        },
        "devMode": true, "host": null, "port": "6001", "protocol": "http", "socketio": {},
        "secureOptions": 67_108_864, "sslCertPath": "", "sslKeyPath": "", "sslCertChainPath": "",
        "sslPassphrase": "", "subscribers": { "http": true, "redis": true },
        "apiOriginAllow": { "allowCors": false, "allowOrigin": "", "allowMethods": "", "allowHeaders": "" }
    })
}

fn imported(value: &Value) -> Result<Imported, String> {
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        Ok((format!("key-{number}"), format!("secret-number-{number}-of-these")))
    };
    let check_id = |id: &str| if id.contains(' ') { Err("has a space".to_owned()) } else { Ok(()) };
    import(&value.to_string(), &mut fresh, &check_id)
}

fn with(change: impl FnOnce(&mut Value)) -> Imported {
    let mut value = documented();
    change(&mut value);
    imported(&value).unwrap()
}

/// What became of a setting.
fn fate(imported: &Imported, setting: &str) -> Vec<(Fate, String)> {
    let notes = imported.notes.iter().filter(|note| note.setting == setting);
    notes.map(|note| (note.fate, note.text.clone())).collect()
}

fn app(imported: &Imported) -> App {
    #[derive(serde::Deserialize)]
    struct File {
        apps: Vec<App>,
    }
    let text = imported.toml();
    let mut file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for redis in file.apps.iter_mut().filter_map(|app| app.redis.as_mut()) {
        // As its file will say.
        redis.password = KeySecret::new("a-password-of-redis");
    }
    Apps::new(file.apps.clone()).unwrap();
    file.apps.into_iter().next().unwrap()
}

#[test]
fn the_documented_file_becomes_an_app_that_holds() {
    let imported = with(|_| ());
    let app = app(&imported);
    assert_eq!((app.id.as_str(), app.socketio), ("1df2b6f1f2a7dc3e", true));
    let keys: Vec<_> = app.keys.iter().map(|key| (key.key.as_str(), key.secret.reveal())).collect();
    assert_eq!(
        keys,
        [("key-1", "fb1dc4d2a3f3b6fbd1c34f2c5e7fd3a1"), ("key-2", "0b1dc4d2a3f3b6fbd1c34f2c5e7fd3a2")]
    );
    let auth = app.auth.unwrap();
    assert_eq!((auth.url.as_str(), auth.by_origin.len()), ("http://app.test/broadcasting/auth", 0));
    let redis = app.redis.unwrap();
    let urls: Vec<_> = redis.urls.iter().map(ToString::to_string).collect();
    assert_eq!((&*urls.join(" "), &*redis.prefix), ("redis://redis.app.test:3001", "laravel_database_"));
    assert_eq!(imported.listener.bind.to_string(), "0.0.0.0:6001");
    let text = imported.toml();
    assert!(
        text.contains("# bind = \"0.0.0.0:6001\"\n") && text.contains("/apps/1df2b6f1f2a7dc3e/..."),
        "{text}"
    );
    assert_eq!(fate(&imported, "clients[1].appId")[0].0, Fate::ToDo);
    assert_eq!(imported.json()["notes"].as_array().unwrap().len(), imported.notes.len());
}

/// Each setting that the file can have is in a note.
#[test]
fn no_setting_is_passed_over() {
    let imported = with(|file| file["mistyped"] = json!(1));
    for setting in documented().as_object().unwrap().keys() {
        let empty =
            ["sslCertPath", "sslKeyPath", "sslCertChainPath", "sslPassphrase", "socketio", "protocol"];
        let named = imported.notes.iter().any(|note| note.setting.contains(setting.as_str()));
        assert!(named || empty.contains(&setting.as_str()), "{setting}");
    }
    assert_eq!(fate(&imported, "mistyped")[0].0, Fate::Unknown);
}

#[test]
fn several_hosts_are_asked_by_origin_and_patterns_are_to_do() {
    let hosts = json!(["https://a.test", "http://b.test:8000/", ".example.com"]);
    let imported = with(|file| file["authHost"] = hosts);
    let auth = app(&imported).auth.unwrap();
    assert_eq!(auth.url_for("https://x.test"), Some("https://a.test/broadcasting/auth"));
    assert_eq!(auth.url_for("http://b.test:8000"), Some("http://b.test:8000/broadcasting/auth"));
    let notes = fate(&imported, "authHost");
    assert!(notes.iter().all(|(fate, _)| *fate == Fate::ToDo) && notes.len() == 2, "{notes:?}");
    assert!(notes[0].1.contains("\".example.com\"") && notes[1].1.contains("certificate"), "{notes:?}");
    let none = with(|file| file["authHost"] = json!(null));
    assert_eq!(app(&none).auth.unwrap().url, "http://localhost/broadcasting/auth");
}

#[test]
fn tls_and_redis_as_far_as_they_can_be_taken() {
    let imported = with(|file| {
        file["protocol"] = json!("https");
        file["sslCertPath"] = json!("/tls/cert.pem");
        file["sslKeyPath"] = json!("/tls/key.pem");
        file["sslCertChainPath"] = json!("/tls/chain.pem");
        file["sslPassphrase"] = json!("hush");
        file["host"] = json!("::1");
        file["port"] = json!("https://x.test:6002/");
        let redis = json!({ "tls": {}, "username": "les", "password": "hush", "db": 3, "keepAlive": 1 });
        file["databaseConfig"] = json!({ "redis": redis, "publishPresence": true });
    });
    let text = imported.toml();
    for line in ["# bind = \"[::1]:6002\"", "# cert = \"/tls/cert.pem\"", "# key = \"/tls/key.pem\""] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    for line in ["url = \"rediss://localhost:6379\"", "user = \"les\"", "password_file = \"redis.password\""]
    {
        assert!(text.lines().any(|found| found.trim_start_matches("# ") == line), "{line}: {text}");
    }
    assert!(!text.contains("hush"), "{text}");
    for setting in [
        "sslCertChainPath",
        "sslPassphrase",
        "databaseConfig.redis.password",
        "databaseConfig.publishPresence",
    ] {
        assert_eq!(fate(&imported, setting)[0].0, Fate::ToDo, "{setting}");
    }
    assert_eq!(fate(&imported, "databaseConfig.redis.db")[0].0, Fate::NotNeeded);
    let sentinels = json!({ "sentinels": [{ "host": "s", "port": 26379 }], "name": "mymaster" });
    let imported = with(|file| file["databaseConfig"] = json!({ "redis": sentinels }));
    assert_eq!(imported.redis, None);
    assert!(fate(&imported, "databaseConfig.redis.sentinels")[0].1.contains("any of them"));
    let off = with(|file| file["subscribers"] = json!({ "redis": false, "http": false }));
    assert_eq!((off.redis.is_none(), fate(&off, "subscribers.http")[0].0), (true, Fate::NotNeeded));
}

#[test]
fn hosts_of_redis_may_have_a_scheme() {
    let url = |host: &str| {
        let mut value = documented();
        value["databaseConfig"]["redis"]["host"] = json!(host);
        imported(&value).map(|imported| imported.redis.unwrap().url)
    };
    assert_eq!(url("tls://r.test").unwrap(), "rediss://r.test:3001");
    assert_eq!(url("tcp://10.0.0.1").unwrap(), "redis://10.0.0.1:3001");
    assert_eq!(url("[::1]").unwrap(), "redis://[::1]:3001");
    for wrong in ["unix:///run/redis.sock", "tls://user:hush@r.test", "a/b", "tls://"] {
        let error = url(wrong).unwrap_err();
        assert!(
            error.starts_with("databaseConfig.redis.host: expected a host name") && !error.contains("hush")
        );
    }
}

#[test]
fn password_is_expected_at_a_path_of_its_own() {
    let mut imported = with(|file| file["databaseConfig"]["redis"]["password"] = json!("hush"));
    imported.expect_password_in(std::path::Path::new("/etc/broadgate/redis.password"));
    let text = imported.toml();
    assert!(
        text.contains("password_file = \"/etc/broadgate/redis.password\"\n") && !text.contains("hush"),
        "{text}"
    );
    let to_do = imported.to_do(std::path::Path::new("apps.toml"));
    assert!(to_do.contains("write it to the file /etc/broadgate/redis.password"), "{to_do}");
    assert!(fate(&imported, "databaseConfig.redis.password")[0].1.contains("/etc/broadgate/"));
}

#[test]
fn an_empty_file_is_the_servers_defaults() {
    let imported = imported(&json!({})).unwrap();
    let app = app(&imported);
    assert_eq!((app.id.as_str(), app.keys[0].key.as_str()), ("1", "key-1"));
    assert_eq!(imported.redis.unwrap().url, "redis://localhost:6379");
    assert_eq!(imported.listener.bind.to_string(), "0.0.0.0:6001");
}

#[test]
fn a_short_key_is_no_secret() {
    let imported = with(|file| file["clients"] = json!([{ "appId": "1", "key": "short" }]));
    assert_eq!(app(&imported).keys[0].secret.reveal(), "secret-number-1-of-these");
    assert_eq!(fate(&imported, "clients[0].key")[0].0, Fate::ToDo);
    assert!(!imported.toml().contains("\"short\""));
}

#[test]
fn what_is_no_such_file_is_one_sentence() {
    for (value, sentence) in [
        (json!([]), "expected an object, as laravel-echo-server writes it"),
        (json!({ "clients": {} }), "clients: expected a list of objects"),
        (json!({ "clients": [{ "appId": "a b", "key": "k" }] }), "clients[0].appId: has a space"),
        (json!({ "clients": [{ "key": "k" }] }), "clients[0].appId: expected a text"),
        (json!({ "authHost": 7 }), "authHost: expected a text or a list of texts"),
        (json!({ "port": "no" }), "port: expected a port, such as 6001"),
        (json!({ "protocol": "ftp" }), "protocol: expected \"http\" or \"https\""),
        (
            json!({ "protocol": "https" }),
            "sslCertPath and sslKeyPath: expected files, because protocol is \"https\"",
        ),
        (json!({ "databaseConfig": 1 }), "databaseConfig: expected an object"),
        (
            json!({ "databaseConfig": { "redis": { "port": "x" } } }),
            "databaseConfig.redis.port: expected a port",
        ),
        (json!({ "devMode": 3 }), "devMode: expected true or false"),
    ] {
        assert_eq!(imported(&value).unwrap_err(), sentence);
    }
    let broken = import("{\n \"port\": }", &mut || unreachable!(), &|_| Ok(())).unwrap_err();
    assert!(broken.starts_with("line 2, column ") && !broken.contains('\n'), "{broken}");
}

/// A name with a newline cannot write a line of its own into the configuration.
#[test]
fn names_stay_in_their_comment() {
    let imported = with(|file| {
        file["a\n[[apps]]"] = json!(1);
        file["protocol"] = json!("https");
        file["sslCertPath"] = json!("\n[[apps]]\nid = \"evil\"\n#");
        file["sslKeyPath"] = json!("k\"\\\u{85}\u{202e}\r\n[[apps]]\n\u{0}");
    });
    let text = imported.toml();
    assert_eq!(text.matches("\n[[apps]]").count(), 1, "{text}");
    assert_eq!(app(&imported).id, "1df2b6f1f2a7dc3e");
    // Uncommented, the listener has the paths as they were.
    let listener: String = text
        .lines()
        .skip_while(|line| *line != "# [[gateway.listeners]]")
        .take_while(|line| line.starts_with('#'))
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let listener: toml::Table = toml::from_str(&listener).unwrap();
    let tls = &listener["gateway"]["listeners"][0]["tls"][0];
    assert_eq!(tls["key"].as_str(), Some("k\"\\\u{85}\u{202e}\r\n[[apps]]\n\u{0}"));
    assert!(!text.contains('\u{202e}'), "{text}");
}
