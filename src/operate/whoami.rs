//! `broadgate whoami`: who the operator is to the cluster, and what that allows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broadgate_proto::v1::{WhoAmIReply, WhoAmIRequest, observe_client::ObserveClient};
use clap::Args;
use tonic::Request;

use crate::{
    failure::Failure,
    operate::{
        probe::{self, WantedRole},
        target::{At, ChosenCluster},
    },
    output::{age, json, print, print_json},
    setting_errors,
    terminal_text::one_line,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Works with any token that counts, also one that allows nothing else here. The gateway writes a login \
                  with a token down in its audit.\n\
                  Exit codes: 0 the cluster knows you, 2 it does not, or usage, 5 no gateway answers.\n\
                  Examples: broadgate whoami    broadgate whoami --cluster prod --json"
)]
pub(crate) struct WhoAmIArgs {
    #[command(flatten)]
    at: At,
    /// Time limit for the answer
    #[arg(long, default_value = "5s", value_parser = setting_errors::duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn whoami(args: WhoAmIArgs) -> Result<(), Failure> {
    let chosen = args.at.open()?;
    let asked = |address: String, within| ask(&chosen, address, within);
    let (address, who) = chosen.first(args.timeout, asked).await?;
    if args.json {
        return print_json(&json("WhoAmIReply", &who)?);
    }
    print(&as_text(&who, &chosen, &address, SystemTime::now()))
}

async fn ask(chosen: &ChosenCluster, address: String, within: Duration) -> Result<WhoAmIReply, Failure> {
    let credentials = &chosen.credentials;
    let channel = probe::channel(&address, credentials.tls.as_ref(), WantedRole::Gateway, within).await?;
    let mut client = ObserveClient::with_interceptor(channel, credentials.sender());
    let asked = client.who_am_i(Request::new(WhoAmIRequest::default())).await;
    asked
        .map(tonic::Response::into_inner)
        .map_err(|status| probe::refused(&address, WantedRole::Gateway, &status))
}

/// For people: one line for each thing that is known.
fn as_text(who: &WhoAmIReply, chosen: &ChosenCluster, address: &str, now: SystemTime) -> String {
    let all_or = |names: &[String]| match names {
        [one] if one == "*" => "all, and the cluster".to_owned(),
        names => names.join(", "),
    };
    let rights = if who.rights.is_empty() { "none".to_owned() } else { who.rights.join(", ") };
    let mut rows = vec![
        ("who", who.who.clone()),
        ("role", who.role.clone()),
        ("apps", all_or(&who.apps)),
        ("rights", rights),
        ("valid", valid(who.expires_at_ms, now)),
        ("gateway", format!("{}, at {address}", who.gateway)),
    ];
    if let Some(name) = &chosen.name {
        let protected = if chosen.protected { ", protected" } else { "" };
        rows.push(("cluster", format!("{name}{protected}")));
    }
    rows.iter().fold(String::new(), |text, (key, value)| text + &format!("{key:<8} {}\n", one_line(value)))
}

/// Until when, and how long that is.
fn valid(expires_at_ms: u64, now: SystemTime) -> String {
    if expires_at_ms == 0 {
        return "does not expire".to_owned();
    }
    let end = UNIX_EPOCH.checked_add(Duration::from_millis(expires_at_ms)).unwrap_or(now);
    let left = end.duration_since(now).map_or_else(|_| "now".to_owned(), |left| format!("in {}", age(left)));
    // Beyond the year 9999 a time has no such text.
    let until = humantime::format_rfc3339_seconds(end.min(UNIX_EPOCH + Duration::from_secs(253_402_300_799)));
    format!("until {until}, {left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_who_they_are() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let who = WhoAmIReply {
            who: "token:ann".to_owned(),
            role: "operator".to_owned(),
            apps: vec!["shop".to_owned(), "blog".to_owned()],
            rights: Vec::new(),
            expires_at_ms: (1_000_000 + 90_000) * 1000,
            gateway: "gw-1\u{1b}".to_owned(),
        };
        let mut chosen = ChosenCluster::of_gateway("gw-1:7200".to_owned(), Default::default());
        let text = as_text(&who, &chosen, "gw-1:7200", now);
        assert_eq!(
            text,
            "who      token:ann\nrole     operator\napps     shop, blog\nrights   none\n\
             valid    until 1970-01-13T14:46:40Z, in 1d 1h\ngateway  gw-1\\u{1b}, at gw-1:7200\n"
        );
        (chosen.name, chosen.protected) = (Some("prod".to_owned()), true);
        let secret = WhoAmIReply {
            apps: vec!["*".to_owned()],
            rights: vec!["payload".to_owned()],
            expires_at_ms: 0,
            ..who
        };
        let text = as_text(&secret, &chosen, "gw-1:7200", now);
        for line in ["apps     all, and the cluster\n", "rights   payload\n", "valid    does not expire\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("cluster  prod, protected\n"), "{text}");
        assert!(valid(u64::MAX, now).starts_with("until 9999-12-31"), "{}", valid(u64::MAX, now));
        assert!(valid(1, now).ends_with(", now"));
    }
}
