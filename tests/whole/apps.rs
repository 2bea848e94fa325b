//! Apps: read again by a gateway that runs, listed, and made.

use std::path::Path;

use broadgate_proto::v1::Audience;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::*;

/// What the log says of the last reading after so many.
pub async fn told(gateway: &Process, before: usize) -> String {
    until("the gateway has read its apps again", async || {
        let log = gateway.log();
        let mut lines =
            log.lines().filter(|line| line.contains("apps read again") || line.contains("the apps stay"));
        lines.nth(before).map(str::to_owned)
    })
    .await
}

async fn refused(cluster: &Cluster, app: &str) -> String {
    let url = format!("ws://{}/ws/{app}", cluster.web(0));
    match Client::try_connect(&url, &[]).await.map(|_| ()) {
        Err(Error::Http(answer)) => {
            String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned()
        }
        other => panic!("{app}: {other:?}"),
    }
}

/// Runs the executable to its end: exit code, output, errors.
pub fn run(args: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
    let output = command.args(args).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn raw(ids: &[&str]) -> String {
    ids.iter().map(|id| format!("[[apps]]\nid = \"{id}\"\nraw = true\n")).collect()
}

/// A new file takes the place of the old one in one step, as editors and deployments do it.
pub fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// The whole life of an apps file under a gateway that goes on.
#[tokio::test]
async fn gateway_reloads_its_apps() {
    let mut cluster = Cluster::quiet(1).start().await;
    // The configuration names the file only now: that is read again too.
    let (config, apps) = (cluster.dir.join("gateway-1.toml"), cluster.dir.join("apps.toml"));
    let plain = std::fs::read_to_string(&config).unwrap();
    let mut old = cluster.client(0).await;
    assert!(refused(&cluster, "blue").await.contains("raw = true"));
    let named = format!("apps_file = {:?}\n{plain}", apps.display().to_string());
    std::fs::write(&config, &named).unwrap();
    let line = told(&cluster.gateways[0], 0).await;
    assert!(line.contains("apps stay") && line.contains("apps.toml"), "{line}");

    // A change of the file is seen by itself.
    replace(&apps, &raw(&["blue"]));
    let line = told(&cluster.gateways[0], 1).await;
    assert!(line.ends_with("apps read again: added blue"), "{line}");
    let mut blue = cluster.client_of(0, "blue").await;

    // On SIGHUP at once, and it says so when there is nothing new.
    cluster.gateways[0].signal("HUP");
    let line = told(&cluster.gateways[0], 2).await;
    assert!(line.ends_with("nothing has changed"), "{line}");

    // Unusable files change nothing, and the error names the line.
    let twice = format!("{}\n[[apps]]\nid = \"default\"\n", raw(&["green"]));
    replace(&apps, &twice);
    let line = told(&cluster.gateways[0], 3).await;
    let at = named.lines().position(|line| line == "[[apps]]").unwrap() + 1;
    for words in [
        format!("{}:5: apps[1]: another app has the id \"default\"", apps.display()),
        format!("; the other is {}:{at}: apps[0]", config.display()),
    ] {
        assert!(line.contains(&words), "{words}: {line}");
    }
    assert!(refused(&cluster, "green").await.contains("raw = true"));
    cluster.client_of(0, "blue").await;
    let mut caller = cluster.caller(0).await;
    let of_blue = Audience { app: "blue".into(), ..clients(&[&blue.id]) };
    caller.send(text(of_blue, "you too")).await.unwrap();
    blue.hears(&["you too"]).await;

    // Disabled and removed apps accept no clients, and close those they have.
    let disabled = raw(&["green"]) + &raw(&["blue"]) + "enabled = false\n";
    replace(&apps, &disabled);
    let line = told(&cluster.gateways[0], 4).await;
    assert!(line.ends_with("added green; changed blue (enabled)"), "{line}");
    let (_, events, _) = cluster.run(&["events", "--kind", "settings"]);
    assert!(events.contains("gateway-1: apps read again: added green; changed blue (enabled)\n"), "{events}");
    assert!(refused(&cluster, "blue").await.contains("disabled"));
    assert_eq!(blue.closed().await.code, 4003);
    replace(&apps, &raw(&["green"]));
    let line = told(&cluster.gateways[0], 5).await;
    assert!(line.ends_with("removed blue"), "{line}");
    cluster.client_of(0, "green").await;

    // All the while nobody else who was connected has noticed.
    caller.send(text(clients(&[&old.id]), "still here")).await.unwrap();
    old.hears(&["still here"]).await;
    assert!(cluster.gateways[0].has_ended().is_none());
}

/// A file that loses all its apps is an accident, whatever is left elsewhere; one that is half written is
/// waited for; one with its old length and time is read all the same.
#[tokio::test]
async fn emptied_apps_file_closes_no_client() {
    let cluster = Cluster::quiet(1).start().await;
    let (config, apps) = (cluster.dir.join("gateway-1.toml"), cluster.dir.join("apps.toml"));
    let plain = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&apps, raw(&["blue", "red"])).unwrap();
    std::fs::write(&config, format!("apps_file = {:?}\n{plain}", apps.display().to_string())).unwrap();
    assert!(told(&cluster.gateways[0], 0).await.ends_with("added blue, red"));
    let (mut blue, mut red) = (cluster.client_of(0, "blue").await, cluster.client_of(0, "red").await);

    std::fs::write(&apps, "").unwrap();
    let line = told(&cluster.gateways[0], 1).await;
    assert!(line.contains("ERROR") && line.contains("apps.toml has no app any more"), "{line}");
    std::fs::remove_file(&apps).unwrap();
    let line = told(&cluster.gateways[0], 2).await;
    assert!(line.contains("ERROR") && line.contains("apps.toml: No such file"), "{line}");
    cluster.gateways[0].signal("HUP");
    let line = told(&cluster.gateways[0], 3).await;
    assert!(line.contains("ERROR"), "{line}");
    // Cut between two apps, as a slow writer may leave it for a moment.
    std::fs::write(&apps, raw(&["blue"])).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    std::fs::write(&apps, raw(&["blue", "red"])).unwrap();
    let line = told(&cluster.gateways[0], 4).await;
    assert!(line.ends_with("nothing has changed"), "{line}");
    let mut caller = cluster.caller(0).await;
    for (app, client) in [("blue", &mut blue), ("red", &mut red)] {
        let to = Audience { app: app.into(), ..clients(&[&client.id]) };
        caller.send(text(to, "still here")).await.unwrap();
        client.hears(&["still here"]).await;
    }

    // The same length, the same time.
    let time = std::fs::metadata(&apps).unwrap().modified().unwrap();
    std::fs::write(&apps, raw(&["blue", "tan"])).unwrap();
    std::fs::File::options().write(true).open(&apps).unwrap().set_modified(time).unwrap();
    let line = told(&cluster.gateways[0], 5).await;
    assert!(line.ends_with("added tan; removed red"), "{line}");
    // An order does not wait for the files to rest.
    std::fs::write(&apps, raw(&["tan"])).unwrap();
    cluster.gateways[0].signal("HUP");
    assert!(told(&cluster.gateways[0], 6).await.ends_with("removed blue"));
}

/// No role ends on SIGHUP.
/// The trouble is logged once, and the file is read again when it is one.
#[tokio::test]
async fn pipe_instead_of_apps_file_is_reported_and_survived() {
    let cluster = Cluster::quiet(1).start().await;
    let (config, apps) = (cluster.dir.join("gateway-1.toml"), cluster.dir.join("apps.toml"));
    std::fs::write(&apps, raw(&["blue"])).unwrap();
    let plain = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("apps_file = {:?}\n{plain}", apps.display().to_string())).unwrap();
    let line = told(&cluster.gateways[0], 0).await;
    assert!(line.contains("added blue"), "{line}");
    let pipe = apps.with_extension("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, &apps).unwrap();
    let line = told(&cluster.gateways[0], 1).await;
    assert!(line.contains("apps stay") && line.contains("not a regular file"), "{line}");
    let mut blue = cluster.client_of(0, "blue").await;
    replace(&apps, &raw(&["blue", "green"]));
    let line = told(&cluster.gateways[0], 2).await;
    assert!(line.contains("added green"), "{line}");
    cluster.client_of(0, "green").await;
    let to_blue = Audience { app: "blue".into(), all: true, ..Audience::default() };
    cluster.caller(0).await.send(text(to_blue, "still here")).await.unwrap();
    blue.hears(&["still here"]).await;
}

#[tokio::test]
async fn hangup_ends_no_role() {
    let mut cluster = Cluster::of(1).start().await;
    let register = format!("--register={}", cluster.register_address);
    let worker = Process::start(&cluster.dir, "echo", &["worker", "echo", "--name=echo", &register], &[]);
    until("the worker is attached", async || {
        let status = cluster.status(0).await?;
        status.workers.iter().any(|worker| worker.name == "echo").then_some(())
    })
    .await;
    worker.signal("HUP");
    cluster.register.as_ref().unwrap().signal("HUP");
    cluster.gateways[0].signal("HUP");
    told(&cluster.gateways[0], 0).await;
    let mut client = cluster.client(0).await;
    client.say("anybody there?").await;
    client.hears(&["anybody there?"]).await;
    assert!(cluster.register.as_mut().unwrap().has_ended().is_none());
}

#[test]
fn apps_are_listed_checked_and_created() {
    let dir = std::env::temp_dir().join(format!("broadgate-apps-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let (config, apps) = (path("listed.toml"), path("apps.toml"));
    let (code, made, _) = run(&["apps", "new", "shop"]);
    assert!(code == 0 && made.starts_with("[[apps]]\nid = \"shop\"\n"), "{made}");
    let (_, other, _) = run(&["apps", "new", "shop"]);
    assert_ne!(made, other);
    let quoted = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let (key, secret) = (quoted(&made, "key"), quoted(&made, "secret"));
    let hook = "[[apps.webhooks]]\nurl = \"https://example.com/hook?token=hush\"\n";
    std::fs::write(&config, "[[apps]]\nid = \"default\"\nraw = true\norigins = [\"*.example.com\"]\n")
        .unwrap();
    std::fs::write(&apps, format!("{made}{hook}")).unwrap();

    let (code, table, _) = run(&["apps", "--config", &config, "--apps", &apps]);
    assert_eq!(code, 0, "{table}");
    for word in ["default", "*.example.com", "shop", &key, "https://example.com/hook", "RAW"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let (code, out, _) = run(&["apps", "--json", "--config", &config, "--apps", &apps]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["apps"][1]["keys"][0]), (0, &Value::from(key.clone())));
    assert_eq!(json["apps"][1]["place"], format!("{apps}:1: apps[0]"));
    assert_eq!((&json["apps"][0]["raw"], &json["apps"][1]["client_events"]), (&true.into(), &true.into()));
    for text in [&table, &out] {
        assert!(!text.contains(&secret) && !text.contains("hush"), "{text}");
    }

    let (code, env, _) = run(&["apps", "env", "shop", "--config", &config, "--apps", &apps]);
    assert_eq!(code, 0, "{env}");
    for line in ["REVERB_APP_ID=shop", &format!("REVERB_APP_KEY={key}"), "REVERB_PORT=8080", "wsPort: 8080,"]
    {
        assert!(env.lines().any(|found| found.trim() == line), "{line}: {env}");
    }
    assert!(env.contains(&format!("REVERB_APP_SECRET={secret}\n")), "{env}");
    let args = ["apps", "env", "shop", "--json", "--url", "https://ws.example.com", "--apps", &apps];
    let (_, out, _) = run(&args);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["env"]["REVERB_PORT"], &json["echo"]["forceTLS"]), (&"443".into(), &true.into()));

    let args =
        ["apps", "env", "shop", "--url", "http://10.0.0.5:8080", "--public-url", "https://ws.example.com"];
    let (_, env, _) = run(&[&args[..], &["--apps", &apps]].concat());
    assert!(
        env.contains("REVERB_HOST=10.0.0.5\n") && env.contains("VITE_REVERB_HOST=ws.example.com\n"),
        "{env}"
    );

    assert_eq!(run(&["check-config", &config, "--apps", &apps]).0, 0);
    std::fs::write(&config, "[[apps]]\nid = \"shop\"\n").unwrap();
    for args in
        [&["apps", "--config", &config, "--apps", &apps][..], &["check-config", &config, "--apps", &apps]]
    {
        let (code, _, error) = run(args);
        assert!(code == 2 && error.contains("apps.toml:1") && error.contains("listed.toml:1"), "{error}");
    }
    assert_eq!(run(&["apps", "env", "none", "--apps", &apps]).0, 4);
    assert_eq!(run(&["apps", "new", "my shop"]).0, 2);
    assert_eq!(run(&["apps", "--apps", "/nowhere.toml"]).0, 2);
    let (code, out, _) = run(&["apps"]);
    assert!(code == 0 && out.contains("apps new"), "{out}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn settings_of_laravel_echo_server_are_imported_or_refused_in_one_sentence() {
    let dir = std::env::temp_dir().join(format!("broadgate-import-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let (file, apps) = (path("laravel-echo-server.json"), path("apps.toml"));
    let key = "fb1dc4d2a3f3b6fbd1c34f2c5e7fd3a1";
    let settings =
        format!("{{\"clients\": [{{\"appId\": \"1df2b6\", \"key\": \"{key}\"}}], \"devMode\": true}}");
    std::fs::write(&file, settings).unwrap();
    let (code, made, _) = run(&["apps", "import", &file]);
    assert!(code == 0 && made.contains(&format!("secret = \"{key}\"")), "{made}");
    std::fs::write(&apps, &made).unwrap();
    let (code, table, error) = run(&["apps", "--apps", &apps]);
    assert!(code == 0 && table.contains("1df2b6"), "{table}{error}");
    // Each import makes its own public key.
    assert_ne!(run(&["apps", "import", &file]).1, made);
    let (_, out, _) = run(&["apps", "import", &file, "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    let fates: Vec<_> = json["notes"].as_array().unwrap().iter().map(|note| &note["fate"]).collect();
    assert!(json["toml"].is_string() && fates.contains(&&Value::from("to do")), "{out}");

    for (text, words) in
        [("{\"port\": ", "line 1, column"), ("[]", "expected an object"), ("{\"port\": []}", "port: ")]
    {
        std::fs::write(&file, text).unwrap();
        let (code, out, error) = run(&["apps", "import", &file]);
        assert!(code == 2 && out.is_empty() && error.contains(&file) && error.contains(words), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let (code, _, error) = run(&["apps", "import", &path("nowhere.json")]);
    assert!(code == 2 && error.contains("nowhere.json"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// A file is written as a whole or not at all, from a file or standard input, with a byte order mark or without.
#[test]
fn imported_app_is_written_whole_or_not_at_all() {
    let dir = std::env::temp_dir().join(format!("broadgate-import-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let import = |input: &str, args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
        command.args(["apps", "import"]).args(args).current_dir(&dir);
        let pipe = std::process::Stdio::piped;
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        // It may have ended before it reads.
        let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout) + &text(output.stderr))
    };
    let settings =
        r#"{"databaseConfig": {"redis": {"host": "tls://r.test", "password": "hush", "keyPrefix": "x"}}}"#;
    std::fs::write(dir.join("bad.json"), "{").unwrap();
    let (code, text) = import("", &["bad.json", "--out", "apps.toml"]);
    assert!(code == 2 && text.contains("bad.json: line 1"), "{text}");
    assert!(!dir.join("apps.toml").exists(), "nothing is left of an import that failed");
    let (code, text) = import(&format!("\u{feff}{settings}"), &["-", "--out", "apps.toml"]);
    assert!(code == 0 && text.contains("apps.toml is written") && text.contains("to do: "), "{text}");
    let written = std::fs::read_to_string(dir.join("apps.toml")).unwrap();
    let password = std::fs::canonicalize(&dir).unwrap().join("redis.password");
    assert!(written.contains(&format!("password_file = {password:?}")), "{written}");
    assert!(
        written.contains("rediss://r.test:6379") && !(written.clone() + &text).contains("hush"),
        "{written}"
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(dir.join("apps.toml")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let (code, text) = import(settings, &["-", "--out", "apps.toml"]);
    assert!(code == 2 && text.contains("is not overwritten"), "{text}");
    assert_eq!(std::fs::read_to_string(dir.join("apps.toml")).unwrap(), written);

    // A file without apps is warned of, wherever it is read.
    std::fs::write(dir.join("empty.toml"), "").unwrap();
    std::fs::write(dir.join("broadgate.toml"), "").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_broadgate"));
    let output = command.args(["check-config", "broadgate.toml", "--apps", "empty.toml"]).current_dir(&dir);
    let output = output.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("warning: apps file empty.toml has no app"), "{text}");
    std::fs::remove_dir_all(&dir).unwrap();
}
