//! Certificates, and the real `openssl s_client`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    agent::CommandOutput,
    lab::{Host, Lab},
};

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On P-256; the certificate is a server's.
    Ecdsa,
    /// 2048 bits; the certificate may issue others, as those that `openssl req -x509` makes by default.
    Rsa,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Ecdsa, Self::Rsa];
}

/// A self-signed certificate and its key, as PEM files in the lab's directory.
#[derive(Clone, Debug)]
pub struct Certificate {
    path: PathBuf,
    key: PathBuf,
    name: String,
}

impl Certificate {
    /// A new one for these DNS names.
    #[must_use]
    pub fn new(lab: &Lab, names: &[&str], kind: Kind) -> Self {
        let directory =
            tempfile::Builder::new().prefix("tls-").tempdir_in(lab.directory()).expect("a directory").keep();
        let (path, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let config = directory.join("openssl.cnf");
        fs::write(&config, "[req]\ndistinguished_name = name\n[name]\n").expect("openssl.cnf");
        let (new_key, authority): (&[&str], _) = match kind {
            Kind::Ecdsa => (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "FALSE"),
            Kind::Rsa => (&["-newkey", "rsa:2048"], "TRUE"),
        };
        let names_in_it: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "1"]).args(new_key).arg("-config").arg(&config);
        command.args(["-addext", &format!("basicConstraints=critical,CA:{authority}")]);
        command.args(["-subj", &format!("/CN={}", names[0])]);
        command.args(["-addext", &format!("subjectAltName={}", names_in_it.join(","))]);
        let output = command.arg("-out").arg(&path).arg("-keyout").arg(&key).output().expect("openssl");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Self { path, key, name: names[0].to_owned() }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its first name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The paths of certificate and key.
    #[must_use]
    pub fn files(&self) -> [String; 2] {
        [&self.path, &self.key].map(|path| path.to_string_lossy().into_owned())
    }

    /// The middle of the key's text: what must not show anywhere.
    #[must_use]
    pub fn secret(&self) -> String {
        let text = fs::read_to_string(&self.key).expect("the key");
        text.lines().nth(1).expect("a line of the key").to_owned()
    }

    /// Puts copies into a directory, as `cert.pem` and `key.pem`.
    pub fn copy_to(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("the directory");
        for (from, to) in [(&self.path, "cert.pem"), (&self.key, "key.pem")] {
            fs::copy(from, directory.join(to)).expect("a copy");
        }
    }
}

/// `openssl s_client`: connects, says `request`, and reads until the server ends.
#[must_use]
pub fn s_client(from: &Host, to: SocketAddr, arguments: &[&str], request: &str) -> CommandOutput {
    let mut command = from.netns.command("sh");
    // -ign_eof: the end of the request is not the end of the connection.
    let script =
        "request=$1 && shift && printf %s \"$request\" | timeout 30 openssl s_client -ign_eof \"$@\"";
    command.args(["-c", script, "sh", request, "-connect", &to.to_string()]).args(arguments);
    CommandOutput::of(&mut command)
}
