//! Payloads that an answer comes without, because the token has no right to see them.

use broadgate_business::Cluster;

/// What stands where a payload would.
pub(super) const HIDDEN: &str = "hidden: this token has no right payload";

/// Whether the cluster hides payloads from this caller. Asked only where an answer has none.
pub(super) async fn are_hidden(cluster: &Cluster) -> bool {
    // What cannot be found out is not claimed.
    cluster.who_am_i().await.is_ok_and(|who| !who.rights.iter().any(|right| right == "payload"))
}

/// Says so beside an answer that should have payloads and has none.
pub(super) async fn tell_if_hidden(cluster: &Cluster, is_without: bool) {
    if is_without && are_hidden(cluster).await {
        say!("{HIDDEN}");
    }
}
