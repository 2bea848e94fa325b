//! What the runbook tells an operator to do about tokens, done as it says.
//!
//! | procedure | test |
//! |---|---|
//! | Take a token away | `token_is_taken_away_and_nobody_else_notices` |

use serde_json::json;

use crate::{
    harness::*,
    tokens::{TokensFile, as_json},
};

const SECRET: &str = "secret-of-the-runbook-0123456789abcdef";

/// A token is removed from the file of every gateway: each refuses it, what was done with it is in the audit, and
/// who else has a token goes on.
#[tokio::test]
async fn token_is_taken_away_and_nobody_else_notices() {
    let mut tokens = TokensFile::new("taken-away");
    let (ann, ben) = (tokens.add("ann", &["--role", "operator"]), tokens.add("ben", &["--role", "reader"]));
    let cluster = Cluster::quiet(2).secret(SECRET).gateway(&tokens.setting()).start().await;
    let close = json!({"to": {"uids": ["42"]}}).to_string();
    assert_eq!(as_json(&cluster.internal[0], "Close", &ann, &close).await.0, 200);
    tokens.remove("ann");
    for address in &cluster.internal {
        until("the token is refused", async || {
            assert_eq!(as_json(address, "WhoAmI", &ben, "{}").await.0, 200);
            (as_json(address, "WhoAmI", &ann, "{}").await.0 == 401).then_some(())
        })
        .await;
    }
    // The event follows the change.
    until("the event is there", async || {
        let (_, told, _) = cluster.run(&["events", "--kind", "settings"]);
        told.contains("tokens read again: there are 1; removed ann").then_some(())
    })
    .await;
    let (_, told, _) = cluster.run(&["events", "--kind", "audit", "--json"]);
    assert!(told.contains(r#"\"who\":\"token:ann\""#) && told.contains("token_refused"), "{told}");
}
