//! Requests that are used, in few words.

use crate::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

/// Reads one key.
#[must_use]
pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

/// Reads so many keys from this one on, below the other one, in their order.
#[must_use]
pub fn range(from: &str, end: &str, limit: i64) -> RangeRequest {
    RangeRequest {
        key: from.to_owned().into(),
        range_end: end.to_owned().into(),
        limit,
        ..RangeRequest::default()
    }
}

/// Writes one key; it goes with the lease, unless that is 0.
#[must_use]
pub fn put(key: &str, value: Vec<u8>, lease: i64) -> RequestOp {
    let put = PutRequest { key: key.to_owned().into(), value: value.into(), lease };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Deletes the keys from this one on, below the other one.
#[must_use]
pub fn delete_range(from: &str, end: &str) -> RequestOp {
    let delete = DeleteRangeRequest { key: from.to_owned().into(), range_end: end.to_owned().into() };
    RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
}

/// The key was created at this revision; 0: it is not there.
#[must_use]
pub fn created_at(key: &str, revision: i64) -> Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// The key was written last at this revision; 0: it is not there.
#[must_use]
pub fn modified_at(key: &str, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

fn compare(key: &str, target: CompareTarget, value: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(value),
    }
}
