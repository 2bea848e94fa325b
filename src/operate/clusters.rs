//! `broadgate cluster`: the clusters that an operator knows by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    failure::Failure,
    operate::profiles::{Profile, Profiles},
    options::TlsFiles,
    output::{print, print_json, table},
    secret_files,
};

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    what: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Give a cluster a name: its addresses, its secret or your token, and certificates
    Add(Box<AddArgs>),
    /// Choose the cluster of commands that name none
    Use {
        /// The cluster's name
        #[arg(required_unless_present = "none")]
        name: Option<String>,
        /// No cluster: the configuration decides again
        #[arg(long, conflicts_with = "name")]
        none: bool,
    },
    /// List the clusters that have a name
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a cluster's name; its files stay
    Remove {
        /// The cluster's name
        name: String,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Its name: letters, digits, - and _
    name: String,
    /// The internal port of a gateway; repeat for several: the first that answers is asked
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    address: Vec<String>,
    /// The file with the shared secret
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The file with your token, which is shown in the secret's place
    #[arg(long, value_name = "FILE", conflicts_with = "secret_file")]
    token_file: Option<PathBuf>,
    /// A program that prints your token, with its arguments: 'pass show broadgate'
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["secret_file", "token_file"])]
    token_command: Option<String>,
    #[command(flatten)]
    tls: TlsFiles,
    /// The app of commands that name none
    #[arg(long)]
    app: Option<String>,
    /// Orders (send, kick, drain) ask for the cluster's name
    #[arg(long)]
    protected: bool,
    /// And choose it for commands that name none
    #[arg(long = "use")]
    is_used: bool,
}

pub(crate) fn cluster(args: ClusterArgs) -> Result<(), Failure> {
    match args.what {
        ClusterCommand::Add(args) => add(*args),
        ClusterCommand::Use { name, .. } => {
            Profiles::set_used(name.as_deref())?;
            print(&match name {
                Some(name) => format!("commands that name no cluster go to {name:?}\n"),
                None => "no cluster is in use: the configuration decides\n".to_owned(),
            })
        }
        ClusterCommand::List { json } => list(&Profiles::read()?, json),
        ClusterCommand::Remove { name } => {
            Profiles::remove(&name)?;
            print(&format!("cluster {name:?} is forgotten\n"))
        }
    }
}

fn add(args: AddArgs) -> Result<(), Failure> {
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
    let [ca, cert, key] = args.tls.paths();
    let profile = Profile {
        addresses: args.address,
        secret_file: absolute(args.secret_file)?,
        token_file: absolute(args.token_file)?,
        token_command: args.token_command.map(|line| line.split_whitespace().map(str::to_owned).collect()),
        tls_ca: absolute(ca)?,
        tls_cert: absolute(cert)?,
        tls_key: absolute(key)?,
        tls_server_name: args.tls.server_name(),
        app: args.app,
        protected: args.protected,
    };
    let profiles = Profiles::add(&args.name, &profile, args.is_used)?;
    for (what, file) in [
        ("secret_file", &profile.secret_file),
        ("token_file", &profile.token_file),
        ("tls_key", &profile.tls_key),
    ] {
        if let Some(warning) = file.as_ref().and_then(|file| secret_files::exposed(what, file)) {
            say!("broadgate: warning: {warning}");
        }
    }
    let name = args.name;
    let how = if args.is_used { "it is in use".to_owned() } else { format!("ask it with --cluster {name}") };
    print(&format!("cluster {name:?} is in {}: {how}\n", profiles.path.display()))
}

fn list(profiles: &Profiles, is_json: bool) -> Result<(), Failure> {
    let is_used = |name: &str| profiles.used.as_deref() == Some(name);
    if let Some(warning) = profiles.used_warning() {
        say!("broadgate: warning: {warning}");
    }
    if is_json {
        let all: Vec<_> = profiles
            .all
            .iter()
            .map(|(name, profile)| {
                json!({
                    "name": name, "in_use": is_used(name), "addresses": profile.addresses, "app": profile.app,
                    "protected": profile.protected, "tls": profile.tls_ca.is_some(),
                })
            })
            .collect();
        return print_json(&json!({ "file": profiles.path, "clusters": all }));
    }
    let rows = profiles.all.iter().map(|(name, profile)| {
        let word = |is: bool, word: &str| if is { word.to_owned() } else { String::new() };
        [
            name.clone(),
            profile.addresses.join(" "),
            profile.app.clone().unwrap_or_default(),
            word(is_used(name), "in use"),
            word(profile.protected, "protected"),
        ]
    });
    print(&table(["CLUSTER", "ADDRESSES", "APP", "", ""], rows))
}
