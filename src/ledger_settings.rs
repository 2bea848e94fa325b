//! What keeps a register's list: from the configuration to what a register is started with.

use std::sync::Arc;

use broadgate_register::server::{
    Etcd, EtcdEndpoint, EtcdSettings, EtcdTls, EtcdTlsFiles, EtcdUser, Ledger, PREFIX_DEFAULT,
};
use broadgate_tasks::bounded_read::{self, ReadableKind};

use crate::{
    config::{EtcdSection, EtcdTlsSection, LedgerKind, RegisterSection},
    failure::Failure,
};

/// A password is a line.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The ledger of a register's settings, checked.
pub(crate) fn ledger(register: &RegisterSection) -> Result<Ledger, Failure> {
    let RegisterSection { etcd, ledger, advertise, .. } = register;
    if *ledger == LedgerKind::Memory {
        let EtcdTlsSection { ca, cert, key } = &etcd.tls;
        let named = !etcd.endpoints.is_empty()
            || !etcd.user.is_empty()
            || etcd.prefix != PREFIX_DEFAULT
            || [&etcd.password_file, ca, cert, key].into_iter().any(Option::is_some);
        return if named {
            let sentence = "register.etcd is set, and register.ledger is \"memory\": set register.ledger = \"etcd\", \
                            or remove register.etcd";
            Err(Failure::usage(sentence))
        } else {
            Ok(Ledger::Memory)
        };
    }
    let endpoints: Result<Vec<_>, _> = etcd.endpoints.iter().map(|one| EtcdEndpoint::parse(one)).collect();
    let endpoints = endpoints.map_err(|error| Failure::usage(format!("register.etcd.endpoints: {error}")))?;
    let settings = EtcdSettings { tls: tls(etcd, &endpoints)?, endpoints, user: user(etcd)? };
    Ok(Ledger::Etcd(Etcd { settings, prefix: etcd.prefix.clone(), advertise: advertise.clone() }))
}

fn tls(etcd: &EtcdSection, endpoints: &[EtcdEndpoint]) -> Result<Option<Arc<EtcdTls>>, Failure> {
    let EtcdTlsSection { ca, cert, key } = &etcd.tls;
    let plain = endpoints.iter().find(|endpoint| !endpoint.tls);
    let Some(ca) = ca else {
        return if endpoints.iter().any(|endpoint| endpoint.tls) {
            let sentence = "register.etcd.endpoints has https://: name the file with the certificate of etcd's CA in \
                            register.etcd.tls.ca";
            Err(Failure::usage(sentence))
        } else if cert.is_some() || key.is_some() {
            Err(Failure::usage(
                "register.etcd.tls has no ca: name the file with the certificate of etcd's CA",
            ))
        } else {
            Ok(None)
        };
    };
    if let Some(plain) = plain {
        let sentence =
            format!("register.etcd.tls is set, and register.etcd.endpoints has {plain}: write https://");
        return Err(Failure::usage(sentence));
    }
    let pair = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        _ => return Err(Failure::usage("register.etcd.tls: cert and key belong together: set both or none")),
    };
    let files = EtcdTlsFiles { ca: ca.clone(), pair };
    let opened =
        EtcdTls::open(files).map_err(|error| Failure::usage(format!("register.etcd.tls: {error:#}")))?;
    Ok(Some(Arc::new(opened)))
}

fn user(etcd: &EtcdSection) -> Result<Option<EtcdUser>, Failure> {
    let (name, file) = match (&*etcd.user, &etcd.password_file) {
        ("", None) => return Ok(None),
        (name, Some(file)) if !name.is_empty() => (name, file),
        ("", Some(_)) => {
            return Err(Failure::usage("register.etcd.password_file has no user: set register.etcd.user"));
        }
        _ => {
            let sentence = "register.etcd.user has no password: name the file that holds it in \
                            register.etcd.password_file";
            return Err(Failure::usage(sentence));
        }
    };
    let place = format!("register.etcd.password_file {}", file.display());
    let text = bounded_read::read_text(file, ReadableKind::Any)
        .map_err(|error| Failure::usage(format!("{place}: {error}")))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX || password.contains(['\r', '\n']) {
        let sentence =
            format!("{place}: it must hold one line, a password of 1 to {PASSWORD_BYTES_MAX} bytes");
        return Err(Failure::usage(sentence));
    }
    Ok(Some(EtcdUser { name: name.to_owned(), password: password.to_owned() }))
}
