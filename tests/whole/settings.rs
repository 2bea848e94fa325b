//! Invalid settings: a start and `check-config` refuse them with one sentence.

use std::process::{Command, Stdio};

use crate::{harness::*, operator::run};

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
        ("register", "[log]\nlevel = \"loud\"".to_owned(), "\"loud\" is not a level"),
        ("worker", "[log]\nlevel = \"info,broadgate_gateway=loud\"".to_owned(), "\"loud\" is not a level"),
        ("gateway", "[gateway]\nname = \" \"".to_owned(), "gateway.name \" \" has no visible character"),
        ("gateway", "[gateway]\nname = \"a\\u0007\"".to_owned(), "gateway.name \"a\\u{7}\" holds a control"),
        ("worker", "[worker]\nname = \"\\u200b\"".to_owned(), "worker name \"\\u{200b}\" has no visible"),
        ("worker", "[worker]\nservices = [\" \"]".to_owned(), "service \" \" has no visible character"),
        (
            "gateway",
            web("bind = \"127.0.0.1:81\"\nservice = \" \""),
            "service \" \" has no visible character",
        ),
        (
            "gateway",
            "[[gateway.listeners]]\nname = \" \"\nkind = \"web\"\nbind = \"127.0.0.1:81\"".to_owned(),
            "name \" \" has no visible character",
        ),
        ("gateway", "[[apps]]\nid = \" \"".to_owned(), "id \" \" has no visible character"),
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
        ("BROADGATE_NAME", " ", "BROADGATE_NAME: \" \" has no visible character"),
        ("BROADGATE_NAME", "a\tb", "BROADGATE_NAME: \"a\\tb\" holds a control character"),
        ("BROADGATE_GATEWAY__NAME", "\u{3000}", "gateway.name \"\\u{3000}\" has no visible character"),
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
    let cases: [Case; 18] = [
        ("", &["gateway", "--name", " "], &[], &["--name \" \" has no visible character"]),
        ("", &["worker", "echo", "--name", "\u{a0}"], &[], &["--name \"\\u{a0}\" has no visible character"]),
        ("", &["worker", "echo"], &[("BROADGATE_NAME", " ")], &["BROADGATE_NAME: \" \" has no visible"]),
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
    let hint = "did you mean BROADGATE_GATEWAY__LIMITS__CLIENTS_MAX?";
    assert!(register.log().contains(hint), "{}", register.log());

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
