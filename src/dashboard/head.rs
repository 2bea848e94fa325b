//! What every page shows of the cluster: its members, their counts, and how they are.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use broadgate_proto::v1::{Coverage, GatewayEvidence, StatusReply, StatusRequest};
use serde_json::{Value, json};

use crate::{
    dashboard::asker::{Asker, GatewayAnswer},
    failure::Failure,
    output,
};

/// Evidence costs a gateway time for each of its apps.
const EVIDENCE_INTERVAL: Duration = Duration::from_secs(10);

/// One visitor's view of the cluster, shared by the visitor's tabs.
#[derive(Default)]
pub(super) struct ClusterHead {
    known: Mutex<KnownEvidence>,
}

#[derive(Default)]
struct KnownEvidence {
    asked: Option<Instant>,
    /// By the gateway's incarnation.
    of: Vec<(String, GatewayEvidence)>,
}

impl ClusterHead {
    /// Asks for the status, and from time to time for the evidence with it.
    pub(super) async fn look(&self, asker: &Asker) -> Result<Value, Failure> {
        let evidence = self.is_evidence_old();
        let salt = getrandom::u64().unwrap_or_default();
        let answered = asker
            .ask(|mut calls| async move {
                calls.gateway.status(StatusRequest { evidence, salt, apps: Vec::new() }).await
            })
            .await?;
        let GatewayAnswer { address, mut reply } = answered;
        asker.learn(&reply);
        let apps = self.keep(&mut reply, evidence);
        let status = output::json("StatusReply", &reply)?;
        Ok(json!({ "asked": address, "status": status, "apps": apps }))
    }

    /// What somebody is shown of the cluster who may see some of its apps alone.
    pub(super) fn of_apps(apps: &[String]) -> Result<Value, Failure> {
        let nothing = StatusReply {
            coverage: Some(Coverage { complete: true, ..Coverage::default() }),
            register_heard: true,
            ..StatusReply::default()
        };
        let status = output::json("StatusReply", &nothing)?;
        Ok(json!({ "asked": "", "status": status, "apps": apps, "limited": true }))
    }

    fn is_evidence_old(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.asked.is_none_or(|asked| asked.elapsed() >= EVIDENCE_INTERVAL)
    }

    /// Keeps new evidence, or adds what is known to a status without; without the hashes, which say nothing here.
    /// Returns the ids of the apps.
    fn keep(&self, reply: &mut StatusReply, is_new: bool) -> Vec<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new {
            known.asked = Some(Instant::now());
            known.of = reply
                .gateways
                .iter()
                .filter_map(|gateway| Some((gateway.incarnation.clone(), gateway.evidence.clone()?)))
                .collect();
        }
        let mut apps: Vec<String> =
            known.of.iter().flat_map(|(_, evidence)| &evidence.apps).map(|app| app.id.clone()).collect();
        apps.sort_unstable();
        apps.dedup();
        for gateway in &mut reply.gateways {
            let of = known.of.iter().find(|(incarnation, _)| *incarnation == gateway.incarnation);
            gateway.evidence = of.map(|(_, evidence)| GatewayEvidence {
                secrets: Vec::new(),
                settings: std::collections::HashMap::new(),
                apps: Vec::new(),
                apps_all: 0,
                ..evidence.clone()
            });
        }
        apps
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::v1::{AppHashes, GatewayStatus};

    use super::*;

    #[test]
    fn evidence_is_kept_and_hashes_are_not_shown() {
        let head = ClusterHead::default();
        assert!(head.is_evidence_old());
        let app = |id: &str| AppHashes { id: id.into(), all: 7, ..AppHashes::default() };
        let evidence = GatewayEvidence {
            slow: 3,
            secrets: vec![9],
            apps: vec![app("b"), app("a")],
            ..GatewayEvidence::default()
        };
        let gateway =
            |evidence| GatewayStatus { incarnation: "g".into(), evidence, ..GatewayStatus::default() };
        let reply = |evidence| StatusReply { gateways: vec![gateway(evidence)], ..StatusReply::default() };
        let mut first = reply(Some(evidence));
        assert_eq!(head.keep(&mut first, true), ["a", "b"]);
        assert!(!head.is_evidence_old());
        let mut second = reply(None);
        assert_eq!(head.keep(&mut second, false), ["a", "b"]);
        for reply in [first, second] {
            let shown = reply.gateways[0].evidence.clone().unwrap();
            assert!(shown.slow == 3 && shown.secrets.is_empty() && shown.apps.is_empty());
        }
    }
}
