//! The rules of legacy iptables and ip6tables, only of tables that are in use already: asking for another one would
//! load its module and register its hooks.

mod getsockopt;
mod table;

use std::fs;
use std::io;

use self::getsockopt::read_table;
use self::table::parse;
use super::rule::{Family, Table};

/// The tables whose PREROUTING chain can redirect.
const TABLES: [&str; 2] = ["mangle", "nat"];

/// The tables of the calling thread's network namespace.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` or `CAP_NET_RAW` in the namespace.
pub fn read_tables() -> io::Result<Vec<Table>> {
    let mut tables = Vec::new();
    for (family, list) in [(Family::Ipv4, "ip_tables_names"), (Family::Ipv6, "ip6_tables_names")] {
        let in_use = names(&format!("/proc/thread-self/net/{list}"))?;
        for name in TABLES.iter().filter(|name| in_use.lines().any(|line| line == **name)) {
            let raw = read_table(family, name)?;
            let parsed = parse(family, name, &raw);
            tables.push(parsed.map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?);
        }
    }
    Ok(tables)
}

/// The file is there once the module is.
fn names(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}
