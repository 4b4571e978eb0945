//! What stands between a visitor and the ingress and puts context in: the preview gateway, nginx and HAProxy.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lab::{Gateway, GatewayOptions, Lab};

use super::{
    config::{self, APP_PORT, KEY},
    contender::{Contender, HAPROXY, NGINX},
    cores,
};

/// Starts all of them on the node, in the order in which turns are taken. The app is the ingress.
pub fn start_all(lab: &Lab) -> Result<Vec<Contender>> {
    let ingress = lab.pod.at(APP_PORT);
    let nginx = |directory: &_| config::nginx_proxy(directory, cores(), ingress, &config::nginx_injection());
    let haproxy = config::haproxy(cores(), ingress, &config::haproxy_injection());
    let contenders = vec![
        Contender::direct(lab),
        gateway(lab, ingress)?,
        Contender::nginx(lab, &lab.node, &format!("{NGINX}-gateway"), nginx)?,
        Contender::haproxy(lab, &lab.node, &format!("{HAPROXY}-gateway"), &haproxy)?,
    ];
    for contender in &contenders {
        contender.check_context(lab)?;
    }
    Ok(contenders)
}

fn gateway(lab: &Lab, ingress: SocketAddr) -> Result<Contender> {
    let gateway = Gateway::start(lab, &GatewayOptions::new(ingress));
    let preview = gateway.create(&lab.dev, &["--key", KEY]);
    let link = preview["share_link"].as_str().context("a preview without a link")?;
    let (_, id) = link.rsplit_once('/').context("a link without a preview")?;
    let cookie = format!("redirector-preview={id}");
    Ok(Contender::gateway(gateway, &cookie))
}
