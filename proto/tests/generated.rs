//! The generated code that is committed is what the `.proto` files say.
//!
//! After a change to the contract: `BROADGATE_REGENERATE=1 cargo test -p broadgate-proto`.

use std::{env, fs, path::Path};

use prost::Message as _;

const FILES: [&str; 7] = ["types", "observe", "register", "gateway", "worker", "peer", "admin"];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos: Vec<_> = FILES.iter().map(|name| format!("broadgate/v1/{name}.proto")).collect();
    let out = root.join(env!("CARGO_TARGET_TMPDIR")).join("gen");
    fs::create_dir_all(&out).unwrap();
    let descriptors = protox::Compiler::new([root])
        .unwrap()
        .include_source_info(true)
        .include_imports(true)
        .open_files(&protos)
        .unwrap()
        .file_descriptor_set();
    tonic_prost_build::configure()
        .bytes(".")
        // Written by hand: a gateway has events in pieces.
        .extern_path(".broadgate.v1.Events", "crate::events::Events")
        .out_dir(&out)
        .compile_fds(descriptors.clone())
        .unwrap();
    let mut bare = descriptors;
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    fs::write(out.join("broadgate.v1.bin"), bare.encode_to_vec()).unwrap();
    for name in ["broadgate.v1.rs", "broadgate.v1.bin"] {
        let fresh = fs::read(out.join(name)).unwrap();
        let committed = root.join("src/gen").join(name);
        if env::var_os("BROADGATE_REGENERATE").is_some() {
            fs::write(&committed, &fresh).unwrap();
        }
        assert!(
            fs::read(&committed).unwrap_or_default() == fresh,
            "{} is stale: run BROADGATE_REGENERATE=1 cargo test -p broadgate-proto",
            committed.display()
        );
    }
}
