//! The operator's commands, and `up`, as they are typed.

use std::process::{Command, Stdio};

use broadgate_proto::v1;
use serde_json::Value;

use crate::harness::*;

fn json(text: &str) -> Value {
    first_json(text).unwrap_or_else(|| panic!("no JSON: {text}"))
}

/// The JSON that a text begins with.
fn first_json(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

#[tokio::test]
async fn cluster_answers_queries_and_commands() {
    let cluster = Cluster::quiet(2).start().await;
    let (mut a, mut b) = (cluster.client(0).await, cluster.client(1).await);
    let mut caller = cluster.caller(0).await;
    caller.bind(bind(&a.id, "ann")).await.unwrap();
    caller.join(join(&[&a.id, &b.id], &["room"])).await.unwrap();

    let (code, out, _) = cluster.run(&["status", "--json"]);
    let status = json(&out);
    assert_eq!(code, 0);
    assert!(status["epoch"].is_string() && status["register"]["heard"] == true, "{out}");
    assert_eq!(status["gateways"].as_array().unwrap().len(), 2);
    assert!(status["workers"].as_array().unwrap().is_empty());
    let (_, table, _) = cluster.run(&["status"]);
    assert!(table.contains("gateway-1") && table.contains("ready"), "{table}");

    let (code, out, _) = cluster.run(&["send", "--group", "room", "--except-uid", "ann", "hello"]);
    assert_eq!((code, out.lines().next().unwrap()), (0, "sent to 1 client on 2 gateways"));
    b.hears(&["hello"]).await;
    let (_, out, _) = cluster.run(&["send", "--json", "--client", &a.id, "--binary", "raw"]);
    assert_eq!(json(&out)["clients"], 1);
    assert_eq!(&a.message().await.into_data()[..], b"raw");

    let (_, out, _) = cluster.run(&["clients", "--group", "room"]);
    assert!(out.contains(&a.id) && out.contains(&b.id), "{out}");
    let (_, out, _) = cluster.run(&["clients", "--json", "--limit", "1"]);
    assert!(!json(&out)["next_cursor"].as_str().unwrap().is_empty());
    let (_, out, _) = cluster.run(&["client", &a.id]);
    assert!(out.contains("ann") && out.contains(&a.local), "{out}");
    let (_, out, _) = cluster.run(&["groups"]);
    assert!(out.contains("room") && out.contains('2'), "{out}");
    let member = v1::PresenceMember { user_id: "ann".into(), info: "{\"seat\":7}".into() };
    let sits = v1::JoinGroupsRequest { member: Some(member), ..join(&[&a.id], &["room"]) };
    cluster.caller(1).await.join(sits).await.unwrap();
    let (_, out, _) = cluster.run(&["roster", "room"]);
    assert!(out.contains("ann") && out.contains("\"seat\":7"), "{out}");
    let (_, out, _) = cluster.run(&["roster", "--json", "room"]);
    assert_eq!(json(&out)["total"], 1);
    let (_, out, _) = cluster.run(&["uids", "--json"]);
    assert_eq!(json(&out)["names"][0]["name"], "ann");

    let (code, _, err) = cluster.run(&["client", &"0".repeat(30)]);
    assert_eq!(code, 4, "{err}");
    let (code, _, err) = cluster.run(&["send", "--client", &"0".repeat(30), "x"]);
    assert_eq!(code, 4, "{err}");
    let (code, _, err) = cluster.run(&["kick", "--all"]);
    assert!(code == 2 && err.contains("--yes"), "{err}");
    let (code, _, _) = cluster.run(&["kick", "--uid", "ann", "--code", "4001", "--reason", "out"]);
    assert_eq!((code, a.closed().await.code), (0, 4001));
    let (code, _, _) = cluster.run(&["kick", "--all", "--yes"]);
    assert_eq!((code, b.closed().await.code), (0, 1000));
    for refused in [
        &["kick", "--all", "--yes", "--code", "5"][..],
        &["send", "--group", "", "x"],
        &["roster", ""],
        &["clients", "--cursor", "nonsense"],
        &["status", "--addr", "nonsense"],
        &["status", "--addr", "https://127.0.0.1:7200"],
        &["drain", "gateway-1", "--register", "nonsense"],
        &["send", "--except-uid", "ann", "x"],
        &["kick", "--except-client", &a.id],
        &["kick", "--except-group", "room", "--yes"],
    ] {
        let (code, _, err) = cluster.run(refused);
        assert_eq!(code, 2, "{refused:?}: {err}");
    }
    // An app that is not there is no empty one.
    let nobody = "0".repeat(30);
    let url = format!("ws://{}/ws", cluster.web(0));
    for command in [
        &["status"][..],
        &["clients"],
        &["client", &nobody],
        &["groups"],
        &["roster", "room"],
        &["uids"],
        &["send", "--all", "x"],
        &["kick", "--all", "--yes"],
        &["bench", "fanout", "--clients", "1", "--messages", "1", "--url", &url],
    ] {
        let (code, _, err) = cluster.run(&[command, &["--app", "none"]].concat());
        assert!(code == 4 && err.contains("no app \"none\""), "{command:?}: {code} {err}");
    }
}

/// An answer shows what is known, and says what is not.
#[tokio::test]
async fn answers_name_missing_gateways_and_omit_unrequested_fields() {
    let cluster = Cluster::quiet(1).start().await;
    let mut client = cluster.client(0).await;
    let gone = "0".repeat(30);
    let (code, out, _) = cluster.run(&["send", "--client", &client.id, "--client", &gone, "some"]);
    assert!(code == 0 && out.contains(&format!("not connected: {gone}\n")), "{code} {out}");
    client.hears(&["some"]).await;
    let (_, out, _) = cluster.run(&["clients", "--json"]);
    let listed = &json(&out)["clients"][0];
    assert!(listed["messages_in"].is_u64() && listed["groups"].is_array(), "{listed}");
    assert!(listed.get("session").is_none(), "{listed}");
    let (_, out, _) = cluster.run(&["client", &client.id]);
    assert!(out.contains("never set"), "{out}");
}

/// A wrong address is explained: what is there, and what was meant.
#[tokio::test]
async fn wrong_addresses_are_explained() {
    use std::io::{Read as _, Write as _};
    let cluster = Cluster::quiet(1).start().await;
    let answering = |answer: &'static [u8]| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(answer);
            }
        });
        address
    };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metered = ["register", "--bind=127.0.0.1:0", "--metrics-bind=127.0.0.1:0"];
    let register = Process::start(&cluster.dir, "metered", &metered, &[]);
    let metrics = register.logged("metrics and probes address=").await;
    let (web, internal) = (cluster.web(0).to_string(), cluster.internal[0].clone());
    let silent = silent.local_addr().unwrap().to_string();
    let cases = [
        (web.clone(), "is a gateway's client port"),
        (cluster.register_address.clone(), "is the register's port"),
        (metrics, "is a metrics port"),
        (answering(b"\x15\x03\x01\x00\x02\x02\x46"), "wants TLS"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port"), "TLS"),
        (answering(b"HTTP/1.1 404 Not Found\r\n\r\n"), "is an HTTP server"),
        (silent, "does not answer as an internal port"),
        ("127.0.0.1:1".to_owned(), "nothing listens there"),
        ("no-such-host.invalid:7200".to_owned(), "no-such-host.invalid"),
    ];
    for (address, words) in &cases {
        let (code, _, err) = cluster.run(&["status", "--timeout", "1s", "--addr", address]);
        assert!(code == 5 && err.contains(words) && err.contains(address), "{address}: {code} {err}");
        assert!(err.contains("gateway.internal.bind"), "{err}");
    }
    // Who is looked for by mistake has one line of it.
    let refused = || cluster.gateways[0].log().matches("refused reason").count();
    let before = refused();
    assert_eq!(cluster.run(&["status", "--addr", &web]).0, 5);
    assert!(refused() <= before + 1, "{}", cluster.gateways[0].log());
    for (address, words) in [(&internal, "gateway's internal port"), (&web, "client port")] {
        let (code, _, err) = cluster.run(&["drain", "gateway-1", "--register", address]);
        assert!(code == 5 && err.contains(words) && err.contains("--register"), "{code} {err}");
    }
}

/// What an operator must see: who attaches without joining, what no worker takes, and that nobody can
/// come or go any more.
#[tokio::test]
async fn status_warns_of_problems() {
    let mut cluster = Cluster::of(1).start().await;
    let (code, out, _) = cluster.run(&["status"]);
    assert!(code == 0 && out.contains("no worker takes service \"default\" of listener \"web\""), "{out}");
    let _worker = TestWorker::attach(&cluster.internal[0], 7).await;
    let (_, out, _) = cluster.run(&["status"]);
    assert!(!out.contains("warning") && out.contains("test-7") && out.contains("not joined"), "{out}");
    cluster.register.as_mut().unwrap().kill();
    until("the register is missed", async || {
        let (code, out, err) = cluster.run(&["status"]);
        (code == 3 && out.contains("NOT HEARD") && err.contains("not heard")).then_some(())
    })
    .await;
}

/// Two registers run by mistake: `status` names them while both have members, and then the gateway that is
/// not where it was configured to be; both sides log it.
#[tokio::test]
async fn status_shows_a_second_register() {
    let second = free_address().to_string();
    let settings = Cluster::quiet(2).register("beat = \"200ms\"\nlease = \"1s\"");
    let cluster = settings.second_register(&second).start().await;
    // The first register's cluster has lived for a lease, so its term is the higher one.
    until("the term rises", async || (cluster.view().await?.epoch?.term > u16::MAX.into()).then_some(()))
        .await;
    let bind = format!("--bind={second}");
    let register = Process::start(&cluster.dir, "second", &["register", &bind], &[]);
    register.logged("register address=").await;
    let config = std::fs::read_to_string(cluster.dir.join("gateway-1.toml")).unwrap();
    let config: String = config
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("register") => format!("register = [\"{second}\"]\n"),
            _ => line.replace("gateway-1", "gateway-9") + "\n",
        })
        .collect();
    let path = cluster.dir.join("gateway-9.toml").display().to_string();
    std::fs::write(&path, config).unwrap();
    let stranger = Process::start(&cluster.dir, "gateway-9", &["gateway", "--config", &path], &[]);
    until("a gateway sees both", async || {
        let gateways = cluster.status(0).await?.gateways;
        let seen = gateways.into_iter().filter_map(|one| one.register).find(|one| !one.outside.is_empty())?;
        assert!(seen.trouble.contains(&format!("register {second} is active as well")), "{seen:?}");
        assert_eq!(seen.outside, ["gateway-9"]);
        Some(())
    })
    .await;
    register.logged("this one steps down").await;
    stranger.logged("the register has stepped down for another one").await;
    let first = &cluster.register_address;
    let warning = format!("warning: gateway-9: register {first}: it is not among cluster.register");
    until("all are at one register", async || {
        let (code, out, _) = cluster.run(&["status"]);
        // The others look again before they call all well.
        (code == 0 && out.contains(&warning) && out.matches("warning: ").count() == 1).then_some(())
    })
    .await;
    let (_, out, _) = cluster.run(&["status", "--json"]);
    let gateways = json(&out)["gateways"].as_array().unwrap().clone();
    let troubles: Vec<_> =
        gateways.iter().map(|one| one["register"]["trouble"].as_str().unwrap().is_empty()).collect();
    assert_eq!(troubles, [true, true, false], "{out}");
    let logs: String = cluster.gateways.iter().map(Process::log).collect();
    assert!(logs.contains("two registers are active: answers are incomplete"), "{logs}");
}

/// A gateway is drained through another one, and waited for.
#[tokio::test]
async fn drain_waits_until_the_gateway_has_left() {
    let mut cluster = Cluster::quiet(2).start().await;
    let other = cluster.internal[1].clone();
    let (code, out, err) = cluster.run(&["drain", "gateway-1", "--addr", &other, "--wait=60s"]);
    assert!(code == 0 && out.contains("has left"), "{out}{err}");
    assert_eq!(cluster.gateways[0].ended().await.code(), Some(0));
    let (code, _, err) = cluster.run(&["drain", "gateway-1", "--addr", &other]);
    assert!(code == 4, "{code} {err}");
}

/// When a drain that was waited for returns, another process can have every port of the gateway.
#[tokio::test]
async fn drained_gateway_has_released_its_ports() {
    let cluster = Cluster::quiet(1).start().await;
    let ports = [free_address(), free_address(), free_address()];
    let flags: Vec<String> = ["--internal-bind", "--client-bind", "--metrics-bind"]
        .iter()
        .zip(ports)
        .map(|(flag, port)| format!("{flag}={port}"))
        .chain([format!("--register={}", cluster.register_address)])
        .collect();
    let mut args = vec!["gateway", "--name=leaves", "--ready-delay=0s"];
    args.extend(flags.iter().map(String::as_str));
    for _ in 0..3 {
        let mut gateway = Process::start(&cluster.dir, "leaves", &args, &[]);
        until("it is in the view", async || {
            let view = cluster.view().await?;
            let ready = v1::MemberState::Ready;
            let is_it = |member: &v1::Member| member.name == "leaves" && member.state() == ready;
            view.members.iter().any(is_it).then_some(())
        })
        .await;
        let (code, out, err) = cluster.run(&["drain", "leaves", "--wait=60s"]);
        assert!(code == 0 && out.contains(&format!("nothing listens on {}", ports[0])), "{out}{err}");
        for port in ports {
            std::net::TcpListener::bind(port).unwrap_or_else(|error| panic!("{port}: {error}"));
        }
        assert_eq!(gateway.ended().await.code(), Some(0));
    }
}

/// A member says what is at an address that it was given by mistake, and not how HTTP/2 failed there.
#[tokio::test]
async fn members_report_what_listens_at_a_wrong_address() {
    let cluster = Cluster::quiet(2).start().await;
    let (web, internal) = (cluster.web(0).to_string(), cluster.internal[0].clone());
    let gateway = ["gateway", "--internal-bind=127.0.0.1:0", "--client-bind=127.0.0.1:0"];
    for (role, args) in [("gateway", &gateway[..]), ("worker", &["worker", "echo"])] {
        for (address, words) in
            [(&web, "is a gateway's client port; name the register's"), (&internal, "it is no register")]
        {
            let register = format!("--register={address}");
            let args = [args, &[&register]].concat();
            let member = Process::start(&cluster.dir, &format!("{role}-{address}"), &args, &[]);
            until(words, async || member.log().contains(words).then_some(())).await;
            let log = member.log();
            assert!(log.contains(address.as_str()) && !log.contains("transport error"), "{log}");
            assert!(!log.contains("the worker is ready"), "no register has taken it in: {log}");
        }
    }
    // What it tells the others is wrong: they say so.
    let (register, advertise) =
        (format!("--register={}", cluster.register_address), format!("--advertise={web}"));
    let args = [&gateway[..], &["--name=lost", &register, &advertise]].concat();
    let _lost = Process::start(&cluster.dir, "lost", &args, &[]);
    let words = format!("{web}, which the gateway advertises, is a gateway's client port");
    until(&words, async || cluster.gateways[1].log().contains(&words).then_some(())).await;
}

/// Commands find cluster and secret where the roles do.
#[tokio::test]
async fn commands_read_the_roles_configuration() {
    let cluster = Cluster::of(0).start().await;
    let secret = cluster.dir.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let (register, internal) = (free_address(), free_address());
    let config = cluster.dir.join("secret.toml");
    let text = format!(
        "[cluster]\nregister = [\"{register}\"]\nsecret_file = {secret:?}\n[register]\nbind = \"{register}\"\n\
         [gateway]\nname = \"only\"\ninternal = {{ bind = \"{internal}\" }}\n\
         [[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\nbind = \"127.0.0.1:0\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    let start = |role: &str| {
        Process::start(&cluster.dir, &format!("secret-{role}"), &[role, "--config", &config], &[])
    };
    let _register = start("register");
    let mut gateway = start("gateway");
    gateway.logged("internal=").await;
    until("the gateway is ready", async || {
        let (code, text) = run(&["status", "--json"], &[("BROADGATE_CONFIG", &config)]);
        (code == 0 && text.contains("\"only\"")).then_some(())
    })
    .await;
    let (code, text) = run(&["status", "--addr", &internal.to_string()], &[]);
    assert!(code == 2 && text.contains("secret"), "{code} {text}");
    let (code, text) = run(&["drain", "only", "--config", &config, "--wait"], &[]);
    assert!(code == 0 && text.contains("has left"), "{code} {text}");
    assert_eq!(gateway.ended().await.code(), Some(0));
}

/// `up` whose output nobody reads any more looks after its children all the same.
#[tokio::test]
async fn up_survives_an_unread_output() {
    let cluster = Cluster::of(0).start().await;
    let base = free_base();
    let state = format!("--state={}", cluster.dir.join("state").display());
    let mut up = Command::new(env!("CARGO_BIN_EXE_broadgate"))
        .args(["up", &format!("--base-port={base}"), &state, "--workers=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((up.stdout.take(), up.stderr.take()));
    let pid = up.id();
    let first = until("a gateway runs", async || find_child(pid, "gateway-1")).await;
    let address = format!("127.0.0.1:{}", base + 10);
    let ready = async || (run(&["status", "--addr", &address], &[]).0 == 0).then_some(());
    until("it answers", ready).await;
    // Its end is reported on standard error.
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    until("it is started again", async || find_child(pid, "gateway-1").filter(|&now| now != first)).await;
    until("it answers again", ready).await;
    assert!(up.try_wait().unwrap().is_none());
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
    let up = std::cell::RefCell::new(up);
    let ended = until("it ends", async || up.borrow_mut().try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
}

/// What a start refuses, `check-config` refuses.
#[test]
fn check_config_refuses_what_a_start_refuses() {
    let dir = std::env::temp_dir().join(format!("broadgate-check-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("checked.toml");
    let path = file.to_str().unwrap();
    let web = |more: &str| format!("[[gateway.listeners]]\nname = \"web\"\nkind = \"web\"\n{more}");
    let cases = [
        ("register", "[register]\nlease = \"2s\"".to_owned(), "four beats"),
        ("register", "[register]\nbeat = \"0s\"".to_owned(), "register.beat"),
        ("register", "[metrics]\nbind = \"127.0.0.1:7100\"".to_owned(), "register.bind has the port 7100"),
        ("gateway", web("bind = \"127.0.0.1:7200\""), "has the port 7200"),
        ("gateway", web("bind = \"127.0.0.1:81\"\n[metrics]\nbind = \"0.0.0.0:81\""), "has the port 81"),
        ("gateway", web("bind = \"127.0.0.1:81\"\napp = \"none\""), "no app \"none\""),
        ("gateway", "[gateway.limits]\nlink_timeout = \"0s\"".to_owned(), "link_timeout"),
        ("gateway", "[cluster]\nregister = [\"http://x:1\"]".to_owned(), "cluster.register"),
        ("gateway", "[cluster]\nregister = []".to_owned(), "cluster.register"),
        ("gateway", "[log]\nlevel = \"a=b=c\"".to_owned(), "log level"),
        ("gateway", "[cluster]\nsecret_file = \"/nowhere\"".to_owned(), "/nowhere"),
        ("gateway", "[[apps]]\nid = \"a\"\n[[apps]]\nid = \"a\"".to_owned(), "another app"),
        ("worker", "[worker]\nevents_max = 0".to_owned(), "events_max"),
        ("worker", "[worker]\nservices = []".to_owned(), "service"),
        ("gateway", "[log]\nlevel = \"warnn\"".to_owned(), "off, error, warn, info, debug or trace"),
        ("register", "[log]\nlevel = \"loud\"".to_owned(), "\"loud\" is no level"),
        ("worker", "[log]\nlevel = \"info,broadgate_gateway=loud\"".to_owned(), "\"loud\" is no level"),
        ("gateway", "[gateway]\nspool = \"/proc/nope\"".to_owned(), "gateway.spool /proc/nope"),
        ("gateway", "[gateway]\nspool = \"/dev/null/nope\"".to_owned(), "gateway.spool /dev/null/nope"),
    ];
    for (role, config, words) in cases {
        std::fs::write(&file, &config).unwrap();
        for args in [&["check-config", path][..], &[role, "echo", "--config", path]] {
            let args: Vec<&str> =
                args.iter().filter(|arg| role == "worker" || **arg != "echo").copied().collect();
            let (code, text) = run(&args, &[]);
            assert!(code == 2 && text.contains(words), "{args:?} with {config}: {code} {text}");
        }
    }
    // By the environment as well. A folder that could be made is not made by a check.
    let spool = dir.join("a/spool");
    std::fs::write(&file, format!("[gateway]\nspool = {spool:?}\n")).unwrap();
    assert_eq!(run(&["check-config", path], &[]).0, 0);
    assert!(!dir.join("a").exists());
    let environment = [
        ("BROADGATE_REGISTER", "here", "cluster.register"),
        ("BROADGATE_LOG", "lod", "BROADGATE_LOG"),
        ("BROADGATE_GATEWAY__SPOOL", "/proc/nope", "gateway.spool /proc/nope"),
    ];
    for (name, value, words) in environment {
        for args in [&["check-config", path][..], &["gateway", "--config", path]] {
            let (code, text) = run(args, &[(name, value)]);
            assert!(code == 2 && text.contains(words), "{args:?} with {name}={value}: {code} {text}");
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

pub fn run(args: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broadgate"));
    command.args(args).stdin(Stdio::null()).env_remove("BROADGATE_SECRET");
    for (key, value) in environment {
        command.env(key, value);
    }
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code().unwrap_or(-1), text)
}

/// A config file, arguments, the environment, and what must be said.
type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);

/// One sentence with the place, exit code 2, nothing started.
#[test]
fn unusable_settings_are_explained() {
    let dir = std::env::temp_dir().join(format!("broadgate-bad-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("bad.toml");
    let path = file.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let bind = format!("--bind={port}");
    let cases: [Case; 15] = [
        ("", &["gateway", "--client-bind", "nonsense"], &[], &["--client-bind", "nonsense"]),
        ("", &["fly"], &[], &["fly"]),
        ("", &["gateway", "--client-bind", "8080"], &[], &["an IP address and port, such as"]),
        ("", &["gateway", "--drain", "soon"], &[], &["30s"]),
        (
            "[register]\nlease = \"soon\"",
            &["register", "--config", path],
            &[],
            &["line 2", "30s", "bad.toml"],
        ),
        (
            "",
            &["worker", "echo"],
            &[("BROADGATE_WORKER__EVENTS_MAX", "x")],
            &["EVENTS_MAX", "a whole number"],
        ),
        ("[gateway]\nnmae = \"x\"", &["gateway", "--config", path], &[], &["line 2", "nmae", "bad.toml"]),
        ("", &["gateway", "--config", "/nowhere.toml"], &[], &["/nowhere.toml"]),
        ("", &["register", &bind], &[], &["register.bind", &port]),
        ("", &["register", "--bind=0.0.0.0:0"], &[], &["register.bind", "secret"]),
        ("", &["gateway", "--internal-bind=0.0.0.0:0"], &[], &["gateway.internal.bind", "secret"]),
        ("", &["register"], &[("BROADGATE_SECRET", "short")], &["BROADGATE_SECRET", "32"]),
        ("", &["register"], &[("BROADGATE_REGISTER__BIND", "x")], &["BROADGATE_REGISTER__BIND"]),
        ("[gateway.limits]\nclients_max = 0", &["check-config", path], &[], &["clients_max"]),
        (
            "",
            &["gateway", "--internal-bind=127.0.0.1:0", &format!("--client-bind={port}")],
            &[],
            &["listeners[0]", &port],
        ),
    ];
    for (config, args, environment, words) in cases {
        std::fs::write(&file, config).unwrap();
        let (code, text) = run(args, environment);
        assert_eq!(code, 2, "{args:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?} does not say {word}: {text}");
        }
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Variables that others set are no errors, whatever is in them; one of ours that cannot be read is.
#[tokio::test]
async fn foreign_environment_variables_are_ignored() {
    use std::{
        ffi::{OsStr, OsString},
        os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    };
    let odd = OsStr::from_bytes(b"\xff\xfe");
    let dir = std::env::temp_dir().join(format!("broadgate-environment-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let start = |environment: &[(&str, &str)]| {
        Process::start(&dir, "register", &["register", "--bind=127.0.0.1:0"], environment)
    };
    for service in ["BROADGATE", "BROADGATE_GATEWAY", "BROADGATE_REGISTER"] {
        let set = [
            ("SERVICE_HOST", "10.96.0.7"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_WEB", "8080"),
            ("PORT", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP", "tcp://10.96.0.7:8080"),
            ("PORT_8080_TCP_ADDR", "10.96.0.7"),
        ]
        .map(|(name, value)| (format!("{service}_{name}"), value));
        let set: Vec<(&str, &str)> = set.iter().map(|(name, value)| (&name[..], *value)).collect();
        let register = start(&set);
        register.logged("register address=").await;
        assert!(!register.log().contains("WARN"), "{}", register.log());
        std::fs::remove_file(dir.join("register.log")).unwrap();
    }
    let register = start(&[("BROADGATE_GATEWAY__LIMITS__CLIENT_MAX", "5"), ("BROADGATE_CONFIG", "")]);
    register.logged("register address=").await;
    let told = "BROADGATE_GATEWAY__LIMITS__CLIENTS_MAX is probably meant";
    assert!(register.log().contains(told), "{}", register.log());

    let odd_run = |args: &[&str], name: &OsStr, value: &OsStr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broadgate"));
        let output = command.args(args).env(name, value).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let config = dir.join("empty.toml").display().to_string();
    std::fs::write(&config, "").unwrap();
    let mut odd_name = b"BROADGATE_".to_vec();
    odd_name.push(0xff);
    for name in [OsStr::new("SOMETHING"), OsStr::new("BROADGATE_SOMETHING"), &OsString::from_vec(odd_name)] {
        let (code, text) = odd_run(&["check-config", &config], name, odd);
        assert_eq!(code, Some(0), "{name:?}: {text}");
    }
    for (args, name, value) in [
        (&["check-config", &config][..], "BROADGATE_SECRET", odd),
        (&["register", "--bind=127.0.0.1:0"], "BROADGATE_SECRET", odd),
        (&["register", "--bind=127.0.0.1:0"], "BROADGATE_LOG", odd),
        (&["gateway"], "BROADGATE_REGISTER", odd),
        (&["status"], "BROADGATE_ADDR", odd),
        (&["status"], "BROADGATE_ADDR", OsStr::new("http://x:1")),
        (&["clients"], "BROADGATE_GATEWAY__NAME", odd),
        (&["up"], "BROADGATE_GATEWAY__LIMITS__CLIENTS_MAX", OsStr::new("many")),
        (&["up"], "BROADGATE_LOG", OsStr::new("lod")),
        (&["version"], "TOKIO_WORKER_THREADS", odd),
        (&["version"], "TOKIO_WORKER_THREADS", OsStr::new("0")),
    ] {
        let (code, text) = odd_run(args, OsStr::new(name), value);
        assert!(code == Some(2) && text.contains(name), "{args:?} with {name}: {code:?} {text}");
    }
    drop(register);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A gateway without a register works, and is not ready.
#[tokio::test]
async fn readiness_needs_a_view() {
    let cluster = Cluster::of(0).start().await;
    let flags = [
        "gateway",
        "--register=127.0.0.1:1",
        "--internal-bind=127.0.0.1:0",
        "--client-bind=127.0.0.1:0",
        "--metrics-bind=127.0.0.1:0",
    ];
    let alone = Process::start(&cluster.dir, "alone", &flags, &[]);
    let metrics = alone.logged("metrics and probes address=").await.parse().unwrap();
    for (path, status) in [("/healthz", "200"), ("/readyz", "503")] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}

#[test]
fn small_commands_work() {
    let (code, secret) = run(&["secret"], &[]);
    assert!(code == 0 && secret.trim().len() >= 32, "{secret}");
    assert_ne!(run(&["secret"], &[]).1, secret);
    let (_, version) = run(&["version", "--json"], &[]);
    assert_eq!(json(&version)["version"], env!("CARGO_PKG_VERSION"));
    let (code, app) = run(&["apps", "new", "1", "--json"], &[]);
    assert!(code == 0 && json(&app)["keys"][0]["secret"].as_str().unwrap().len() == 64, "{app}");
    assert!(run(&["completions", "bash"], &[]).1.contains("broadgate"));
    let (_, help) = run(&["--help"], &[]);
    assert!(help.contains("7100") && help.contains("Exit codes"), "{help}");
}

/// `up` from its start to its end: the table, the page, a child that dies and comes back, and
/// children that end with their supervisor, also when it is killed.
#[tokio::test]
async fn up_supervises_its_children() {
    // The guard that bounds how many clusters run, with no process of its own but the register.
    let cluster = Cluster::of(0).start().await;
    let base = free_base();
    let apps = cluster.dir.join("state/apps.toml").display().to_string();
    let state = cluster.dir.join("state").display().to_string();
    let args = ["up".to_owned(), format!("--base-port={base}"), format!("--state={state}")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut up = Process::start(&cluster.dir, "up", &args, &[]);
    until("it says that it runs", async || up.log().contains("The cluster is ready").then_some(())).await;
    assert!(up.log().contains(&format!("http://127.0.0.1:{}/", base + 20)), "{}", up.log());
    // The new app is shown, and all gateways know it.
    let list = first_json(&run(&["apps", "--json", "--apps", &apps], &[]).1).unwrap();
    let key = list["apps"][0]["keys"][0].as_str().unwrap();
    let log = up.log();
    assert!(log.contains(&format!("/console#app=1&key={key}\n")), "{log}");
    assert!(
        log.contains("apps env 1 --apps ") && log.contains(&format!("--url http://127.0.0.1:{}", base + 20))
    );
    let address = format!("127.0.0.1:{}", base + 10);
    let status = || first_json(&run(&["status", "--json", "--addr", &address], &[]).1);
    let first = status().unwrap();
    let incarnation = |status: &Value| {
        let gateways = status["gateways"].as_array().unwrap().clone();
        gateways
            .into_iter()
            .find(|gateway| gateway["name"] == "gateway-2")
            .map(|gateway| gateway["incarnation"].clone())
    };
    let page = crate::malformed_input::answer(
        format!("127.0.0.1:{}", base + 20).parse().unwrap(),
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        false,
    )
    .await;
    assert!(page.starts_with(b"HTTP/1.1 200") && String::from_utf8_lossy(&page).contains("<html"));
    for (path, status, words) in [
        ("/healthz", "200", "ok"),
        ("/readyz", "200", "ready"),
        ("/metrics", "200", "# HELP broadgate_gateway_clients "),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let metrics = format!("127.0.0.1:{}", base + 31).parse().unwrap();
        let answer = crate::malformed_input::answer(metrics, request.as_bytes(), false).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words),
            "{path}: {answer}"
        );
        crate::malformed_input::answer(metrics, b"\x16\x03\x01garbage", true).await;
    }
    let (code, text) = run(&["up", &format!("--base-port={base}"), &format!("--state={state}")], &[]);
    assert!(code == 2 && text.contains(&format!("port {base}")), "{text}");
    let child = children(up.id(), "gateway-2");
    assert!(Command::new("kill").args(["-9", &child.to_string()]).status().unwrap().success());
    until("the child is back", async || {
        let now = status()?;
        (incarnation(&now).is_some() && incarnation(&now) != incarnation(&first)).then_some(())
    })
    .await;
    assert!(up.log().contains("gateway-2 has ended: signal 9"), "{}", up.log());
    let child = children(up.id(), "gateway-1");
    assert!(Command::new("kill").args(["-TERM", &child.to_string()]).status().unwrap().success());
    until("a child that was told to stop has stopped", async || {
        up.log().contains("gateway-1 has ended: exit code 0").then_some(())
    })
    .await;
    let running = || ["gateway-1", "gateway-2", "chat-1"].map(|name| find_child(up.id(), name));
    until("all are back", async || running().iter().all(Option::is_some).then_some(())).await;
    let others = running().map(Option::unwrap);
    up.kill();
    for pid in others {
        until("the children end", async || {
            (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
        .await;
    }
    let mut again = Process::start(&cluster.dir, "again", &args, &[]);
    until("it runs again", async || again.log().contains("The cluster is ready").then_some(())).await;
    again.signal("INT");
    assert_eq!(again.ended().await.code(), Some(0), "{}", again.log());
}

/// A base port from which on what `up` needs is free.
pub fn free_base() -> u16 {
    // Each base is given out once: another test may be about to use it. Below the ephemeral ports.
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 50).unwrap();
    loop {
        let step = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = 20_000 + (own + step) % 120 * 100;
        if (0..40).all(|port| std::net::TcpListener::bind(("127.0.0.1", base + port)).is_ok()) {
            return base;
        }
    }
}

fn children(parent: u32, name: &str) -> u32 {
    find_child(parent, name).unwrap_or_else(|| panic!("{name} is not a child of {parent}"))
}

/// The process of a supervisor's child.
fn find_child(parent: u32, name: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let wanted = format!("--name={name}");
    pids.into_iter().find(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        String::from_utf8_lossy(&command).split('\0').any(|arg| arg == wanted)
            && status.contains(&format!("PPid:\t{parent}\n"))
    })
}
