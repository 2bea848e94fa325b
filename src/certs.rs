//! `broadgate certs`: certificates for clusters and listeners of those who have no PKI.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{ErrorKind, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use broadgate_tls::{
    DEFAULT_SERVER_NAME, FileError, FileReads, PairFiles, load_key, load_pair, load_roots,
    rustls::pki_types::ServerName,
};
use clap::{Args, Subcommand};
use data_encoding::{BASE64, HEXLOWER};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

const DAY: Duration = Duration::from_secs(86_400);
/// Certificates are valid from this time before they were made: clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// Ten years: to change a CA, every process needs other files.
const CA_DAYS: u32 = 3650;
/// A year: replaced files are taken into use without a restart.
const PAIR_DAYS: u32 = 365;
/// Of a file's name.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Generate a cluster's CA
    Ca {
        #[command(flatten)]
        folder: Folder,
        /// Days of validity
        #[arg(long, default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Generate a certificate and key for a process of the cluster or for one of its callers
    Pair {
        /// Name of the files, such as the process's name
        name: String,
        #[command(flatten)]
        folder: Folder,
        /// Days of validity, at most until the CA expires
        #[arg(long, default_value_t = PAIR_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// The DNS name in every certificate of the cluster (cluster.tls.server_name)
        #[arg(long, value_name = "NAME", default_value = DEFAULT_SERVER_NAME)]
        server_name: String,
    },
    /// Generate a certificate and key for client listeners; clients must trust the CA
    Listener {
        /// Name of the files
        name: String,
        #[command(flatten)]
        folder: Folder,
        /// Days of validity, at most until the CA expires
        #[arg(long, default_value_t = PAIR_DAYS, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// A DNS name or IP address that clients connect to; repeat for several
        #[arg(long = "host", value_name = "NAME", required = true)]
        hosts: Vec<String>,
        /// Also valid as a client certificate, as etcd members need among each other
        #[arg(long)]
        mutual: bool,
    },
}

#[derive(Debug, Args)]
struct Folder {
    /// Folder of the certificates
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

/// What a certificate is for.
pub(crate) enum For<'a> {
    /// A process of the cluster whose certificates have this name.
    Cluster(&'a str),
    /// Listeners that clients reach at these names and addresses.
    Clients(&'a [String]),
    /// Processes of another system that reach each other at these names and addresses.
    Members(&'a [String]),
}

pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let text = match args.what {
        What::Ca { folder: Folder { dir }, days } => {
            let made = make_ca(&dir, days)?;
            format!(
                "{} and {} are written. With the key, anybody can join the cluster: keep it off its hosts.\n\
                 Next, for every process and every host from which you command the cluster:\n\n  \
                 broadgate certs pair NAME --dir {}\n",
                made.cert.display(),
                made.key.display(),
                dir.display()
            )
        }
        What::Pair { name, folder: Folder { dir }, days, server_name } => {
            let made = make_pair(&dir, &name, days, &For::Cluster(&server_name))?;
            let other = if server_name == DEFAULT_SERVER_NAME {
                String::new()
            } else {
                format!("server_name = {server_name:?}\n")
            };
            format!(
                "{} and {} are written. Copy both and {} to the process's host, and set there:\n\n\
                 [cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n{other}",
                made.cert.display(),
                made.key.display(),
                dir.join("ca.pem").display(),
                dir.join("ca.pem"),
                made.cert,
                made.key,
            )
        }
        What::Listener { name, folder: Folder { dir }, days, hosts, mutual: true } => {
            let made = make_pair(&dir, &name, days, &For::Members(&hosts))?;
            format!(
                "{} and {} are written, for members that trust {}. Copy all three to the member's host.\n",
                made.cert.display(),
                made.key.display(),
                dir.join("ca.pem").display(),
            )
        }
        What::Listener { name, folder: Folder { dir }, days, hosts, mutual: false } => {
            let made = make_pair(&dir, &name, days, &For::Clients(&hosts))?;
            format!(
                "{} and {} are written, for clients that trust {}. Copy both to the gateway's host, and add to its \
                 listener:\n\n[[gateway.listeners.tls]]\ncert = {:?}\nkey = {:?}\n",
                made.cert.display(),
                made.key.display(),
                dir.join("ca.pem").display(),
                made.cert,
                made.key,
            )
        }
    };
    crate::output::print(&text)
}

/// Makes a CA in a folder, which is created if it is not there.
pub(crate) fn make_ca(dir: &Path, days: u32) -> Result<PairFiles, Failure> {
    let files = files(dir, "ca");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Failure::usage(format!("folder {} cannot be made: {error}", dir.display())))?;
    let key = KeyPair::generate().map_err(impossible)?;
    let mut params = ca_params(&key);
    set_time(&mut params, days, None);
    let certificate = params.self_signed(&key).map_err(impossible)?;
    write(&files, certificate.der(), &key)?;
    Ok(files)
}

/// Makes a certificate that the CA of this folder signs.
pub(crate) fn make_pair(dir: &Path, name: &str, days: u32, of: &For<'_>) -> Result<PairFiles, Failure> {
    check_name(name)?;
    if let For::Cluster(server_name) = of {
        check_server_name(server_name)?;
    }
    let (ca, files) = (files(dir, "ca"), files(dir, name));
    let loaded = load_pair(&ca, &mut FileReads::default()).and_then(|pair| {
        pair.check_time(SystemTime::now())?;
        Ok((pair, load_key(&ca.key, &mut FileReads::default())?))
    });
    let (pair, key) = loaded.map_err(|error| {
        Failure::usage(format!("{error} (`broadgate certs ca --dir {}` makes a CA)", dir.display()))
    })?;
    let ca_key = KeyPair::try_from(&key)
        .map_err(|error| Failure::usage(format!("key file {} cannot sign: {error}", ca.key.display())))?;
    let issuer = Issuer::new(ca_params(&ca_key), ca_key);
    let mut params = params(name, of)?;
    set_time(&mut params, days, Some(pair.validity.until));
    let key = KeyPair::generate().map_err(impossible)?;
    let certificate = params.signed_by(&key, &issuer).map_err(impossible)?;
    write(&files, certificate.der(), &key)?;
    // A CA of other tools has another subject than the one that was assumed.
    let verified = load_pair(&files, &mut FileReads::default()).and_then(|pair| {
        let roots = load_roots(&ca.cert, &mut FileReads::default())?;
        match pair.check_issuer(&ca.cert, &roots) {
            // What a listener shows to its clients is for servers alone.
            Err(FileError::Usage { .. }) if matches!(of, For::Clients(_)) => Ok(()),
            checked => checked,
        }
    });
    if let Err(error) = verified {
        let _ = std::fs::remove_file(&files.cert);
        let _ = std::fs::remove_file(&files.key);
        return Err(Failure::usage(format!(
            "the CA in {} is not of `broadgate certs ca`: make the certificate with the tool that made the CA \
             ({error:#})",
            dir.display()
        )));
    }
    Ok(files)
}

fn files(dir: &Path, name: &str) -> PairFiles {
    PairFiles { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain);
    if is_good && name != "ca" && !name.starts_with(['.', '-']) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{name:?} cannot name a certificate's files: use up to {NAME_BYTES_MAX} letters, digits, \"-\", \"_\" and \
         \".\", and not \"ca\""
    )))
}

/// Members verify it as a DNS name, whatever the address that they dial.
fn check_server_name(name: &str) -> Result<(), Failure> {
    if matches!(ServerName::try_from(name), Ok(ServerName::DnsName(_))) && !name.ends_with('.') {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--server-name {name:?} is not a DNS name, such as {DEFAULT_SERVER_NAME:?}: it is the name in all certificates of \
         the cluster, not the address of a process"
    )))
}

/// Of a CA with this key. Its subject follows from the key, so that two CAs of one cluster, while it is being
/// changed, have different ones.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let id = HEXLOWER.encode(&Sha256::digest(key.der_bytes())[..4]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Broadgate CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str, of: &For<'_>) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if !matches!(of, For::Clients(_)) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    let hosts = match of {
        For::Cluster(server_name) => vec![(*server_name).to_owned()],
        For::Clients(hosts) | For::Members(hosts) => hosts.to_vec(),
    };
    for host in hosts {
        params.subject_alt_names.push(subject(&host)?);
    }
    Ok(params)
}

/// A name or address that the certificate is for. One that no client could verify is refused.
fn subject(host: &str) -> Result<SanType, Failure> {
    let refuse = |why: &str| Err(Failure::usage(format!("--host {host:?} {why}")));
    if let Ok(address) = host.parse::<IpAddr>() {
        if address.is_unspecified() || address.is_multicast() {
            return refuse("is an address that no client connects to: name the host's own address");
        }
        return Ok(SanType::IpAddress(address));
    }
    let (is_wildcard, bare) = host.strip_prefix("*.").map_or((false, host), |bare| (true, bare));
    if !matches!(ServerName::try_from(bare), Ok(ServerName::DnsName(_))) {
        return refuse(match bare.parse::<IpAddr>() {
            Ok(_) => {
                "is a wildcard for an IP address, which certificates cannot have: name the address itself"
            }
            Err(_) => "is neither a DNS name nor an IP address",
        });
    }
    if host.ends_with('.') {
        return refuse("ends with a dot, which names in certificates do not: leave it out");
    }
    if is_wildcard && !bare.contains('.') {
        return refuse(
            "is a wildcard that clients do not accept: name it below a domain, such as *.chat.example",
        );
    }
    match host.to_owned().try_into() {
        Ok(name) => Ok(SanType::DnsName(name)),
        Err(_) => refuse("is neither a DNS name nor an IP address"),
    }
}

fn set_time(params: &mut CertificateParams, days: u32, at_most: Option<SystemTime>) {
    let now = SystemTime::now();
    let until = now + DAY * days;
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = at_most.map_or(until, |at_most| until.min(at_most)).into();
}

/// Writes both files, or none of them.
fn write(files: &PairFiles, certificate: &[u8], key: &KeyPair) -> Result<(), Failure> {
    create(&files.key, 0o600, &pem("PRIVATE KEY", key.serialized_der()))?;
    create(&files.cert, 0o644, &pem("CERTIFICATE", certificate)).inspect_err(|_| {
        let _ = std::fs::remove_file(&files.key);
    })
}

/// Writes a file that is not there yet.
fn create(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = made.and_then(|mut file| {
        // Half a key is in the way of the next attempt.
        file.write_all(text.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(path)))
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} is there already, and is not overwritten: choose another name or --dir, or move it away",
            path.display()
        )),
        _ => Failure::usage(format!("{} cannot be written: {error}", path.display())),
    })
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

/// The cryptography refuses parameters that are its own.
fn impossible(error: rcgen::Error) -> Failure {
    Failure::Failed(format!("no certificate could be made: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Each name is in the certificate as clients verify it, or is refused with one sentence.
    #[test]
    fn hosts_that_no_client_could_verify_are_refused() {
        let dir = std::env::temp_dir().join(format!("broadgate-hosts-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        make_ca(&dir, 10).unwrap();
        for (number, (host, reached)) in [
            ("localhost", "localhost"),
            ("my_host", "my_host"),
            ("chat.example", "chat.example"),
            ("*.chat.example", "a.chat.example"),
            ("*.a.b.example", "x.a.b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:db8::1", "2001:db8::1"),
        ]
        .into_iter()
        .enumerate()
        {
            let made =
                make_pair(&dir, &format!("good-{number}"), 1, &For::Clients(&[host.to_owned()])).unwrap();
            let pair = load_pair(&made, &mut FileReads::default()).unwrap();
            assert!(pair.covers(&ServerName::try_from(reached).unwrap()), "{host} does not cover {reached}");
        }
        for (host, why) in [
            ("*.127.0.0.1", "wildcard for an IP address"),
            ("*.::1", "wildcard for an IP address"),
            ("*.localhost", "wildcard that clients do not accept"),
            ("*.com", "wildcard that clients do not accept"),
            ("*", "neither"),
            ("*.", "neither"),
            ("*.*.chat.example", "neither"),
            ("a.*.chat.example", "neither"),
            ("a*.chat.example", "neither"),
            ("chat.example.", "ends with a dot"),
            ("*.chat.example.", "ends with a dot"),
            ("", "neither"),
            (" ", "neither"),
            ("not a name", "neither"),
            ("-a.example", "neither"),
            ("a..example", "neither"),
            ("127.0.0.256", "neither"),
            ("127.1", "neither"),
            ("127.0.0.1:443", "neither"),
            ("[::1]", "neither"),
            ("chat.example:443", "neither"),
            ("https://chat.example", "neither"),
            ("b\u{fc}cher.example", "neither"),
            ("0.0.0.0", "no client connects to"),
            ("::", "no client connects to"),
            ("224.0.0.1", "no client connects to"),
        ] {
            for of in [For::Clients(&[host.to_owned()]), For::Members(&[host.to_owned()])] {
                let refused = make_pair(&dir, "bad", 1, &of).unwrap_err().to_string();
                assert!(refused.contains(why) && refused.contains("--host"), "{host}: {refused}");
                assert!(!refused.contains('\n') && !dir.join("bad.key").exists(), "{host}: {refused}");
            }
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn made_certificates_serve_a_cluster_and_listeners_and_are_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("broadgate-certs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let without = make_pair(&dir, "a", 1, &For::Cluster("broadgate")).unwrap_err().to_string();
        assert!(
            without.contains("ca.pem cannot be read") && without.contains("broadgate certs ca"),
            "{without}"
        );
        let ca = make_ca(&dir, 10).unwrap();
        let pair = make_pair(&dir, "gateway-1", 1, &For::Cluster("broadgate")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&ca.key), mode(&pair.key), mode(&dir)), (0o600, 0o600, 0o700));
        let hosts = ["chat.example".to_owned(), "*.chat.example".to_owned(), "192.0.2.7".to_owned()];
        let listener = make_pair(&dir, "web", 100, &For::Clients(&hosts)).unwrap();
        let loaded = load_pair(&listener, &mut FileReads::default()).unwrap();
        assert_eq!(loaded.names(), hosts);
        let of_ca = load_pair(&ca, &mut FileReads::default()).unwrap().validity;
        assert_eq!(loaded.validity.until, of_ca.until, "no longer than its CA");
        for again in [make_ca(&dir, 1), make_pair(&dir, "web", 1, &For::Clients(&hosts))] {
            let again = again.unwrap_err().to_string();
            assert!(again.contains("is there already, and is not overwritten"), "{again}");
        }
        for wrong in ["", "ca", "../x", ".x", "a/b", "-x"] {
            assert!(make_pair(&dir, wrong, 1, &For::Cluster("broadgate")).is_err(), "{wrong}");
        }
        let address = make_pair(&dir, "x", 1, &For::Cluster("10.0.0.1")).unwrap_err().to_string();
        assert!(address.contains("--server-name \"10.0.0.1\" is not a DNS name"), "{address}");
        let dotted = make_pair(&dir, "x", 1, &For::Cluster("broadgate.")).unwrap_err().to_string();
        assert!(dotted.contains("is not a DNS name"), "{dotted}");
        // One of another tool, whose subject is not known here.
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(&key);
        params.distinguished_name.push(DnType::OrganizationName, "Others");
        set_time(&mut params, 1, None);
        let others = params.self_signed(&key).unwrap();
        std::fs::remove_file(&ca.cert).unwrap();
        std::fs::remove_file(&ca.key).unwrap();
        write(&ca, others.der(), &key).unwrap();
        for of in [For::Cluster("broadgate"), For::Clients(&hosts), For::Members(&hosts)] {
            let foreign = make_pair(&dir, "other", 1, &of).unwrap_err().to_string();
            assert!(foreign.contains("not of `broadgate certs ca`"), "{foreign}");
            assert!(!dir.join("other.key").exists());
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
