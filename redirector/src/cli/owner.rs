//! Who runs a command.

/// `user@host`: for people, not for access.
#[cfg(unix)]
pub fn owner() -> String {
    use nix::unistd::{User, gethostname, getuid};
    let user = User::from_uid(getuid()).ok().flatten().map_or_else(|| getuid().to_string(), |user| user.name);
    let host = gethostname().map(|host| host.to_string_lossy().into_owned());
    format!("{user}@{}", host.unwrap_or_else(|_| "localhost".to_owned()))
}

/// `user@host`: for people, not for access.
#[cfg(not(unix))]
pub fn owner() -> String {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "somebody".to_owned());
    format!("{}@{}", variable("USERNAME"), variable("COMPUTERNAME"))
}
