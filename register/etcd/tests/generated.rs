//! The generated code that is committed is what the `.proto` files say.
//!
//! After a change: `BROADGATE_REGENERATE=1 cargo test -p broadgate-etcd`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{env, fs, path::Path};

const FILES: [&str; 2] = ["etcd.proto", "ledger.proto"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcd-gen");
    fs::create_dir_all(&out).unwrap();
    let descriptors = protox::Compiler::new([root.join("proto")])
        .unwrap()
        .include_source_info(true)
        .open_files(FILES)
        .unwrap()
        .file_descriptor_set();
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .out_dir(&out)
        .compile_fds(descriptors)
        .unwrap();
    for name in ["etcdserverpb.rs", "broadgate.ledger.v1.rs"] {
        let fresh = fs::read(out.join(name)).unwrap();
        let committed = root.join("src/gen").join(name);
        if env::var_os("BROADGATE_REGENERATE").is_some() {
            fs::write(&committed, &fresh).unwrap();
        }
        assert!(
            fs::read(&committed).unwrap_or_default() == fresh,
            "{} is stale: run BROADGATE_REGENERATE=1 cargo test -p broadgate-etcd",
            committed.display()
        );
    }
}
