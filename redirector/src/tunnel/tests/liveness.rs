use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{echo, meta, patient, server, soon};
use crate::tunnel::agent_end::AgentEnd;
use crate::tunnel::developer_end::DeveloperEnd;
use crate::tunnel::error::{OpenError, TunnelError};
use crate::tunnel::liveness::LivenessConfig;

/// Short to wait for, long enough that a loaded machine's live peer is not taken for dead.
fn impatient() -> LivenessConfig {
    LivenessConfig { interval: Duration::from_millis(50), deadline: Duration::from_secs(2) }
}

#[tokio::test]
async fn the_agent_notices_a_developer_that_stops_reading() {
    let to = server(echo).await;
    let (agent, developer) = tokio::io::duplex(1 << 16);
    let (tunnel, driver) = AgentEnd::handshake(agent, impatient()).await.unwrap();
    let driver = tokio::spawn(driver);
    let end = DeveloperEnd { liveness: patient(), ..DeveloperEnd::new(to.to_string().parse().unwrap()) };
    let mut serving = Box::pin(end.serve(developer, |_| {}));

    let mut stream = tunnel.open(&meta()).unwrap();
    stream.write_all(b"a").await.unwrap();
    let first = async { soon(stream.read_u8()).await.unwrap() };
    tokio::select! {
        _ = &mut serving => panic!("the developer's end ended"),
        byte = first => assert_eq!(byte, b'a'),
    }

    // From here on the developer's end is held but not polled, as in a laptop that sleeps.
    assert!(matches!(soon(tunnel.closed()).await, TunnelError::Dead { .. }));
    assert!(soon(stream.read_u8()).await.is_err());
    assert!(matches!(tunnel.open(&meta()), Err(OpenError::Gone(TunnelError::Dead { .. }))));
    assert!(matches!(soon(driver).await.unwrap(), TunnelError::Dead { .. }));
    drop(serving);
}

#[tokio::test]
async fn the_developer_notices_an_agent_that_stops_reading() {
    let to = server(echo).await;
    let (agent, developer) = tokio::io::duplex(1 << 16);
    let (tunnel, driver) = AgentEnd::handshake(agent, patient()).await.unwrap();
    let mut driver = Box::pin(driver);
    let end = DeveloperEnd { liveness: impatient(), ..DeveloperEnd::new(to.to_string().parse().unwrap()) };
    let serving = tokio::spawn(end.serve(developer, |_| {}));
    let mut stream = tunnel.open(&meta()).unwrap();
    let first = async {
        stream.write_all(b"a").await.unwrap();
        soon(stream.read_u8()).await.unwrap()
    };
    tokio::select! {
        _ = &mut driver => panic!("the agent's end ended"),
        byte = first => assert_eq!(byte, b'a'),
    }
    assert!(matches!(soon(serving).await.unwrap(), TunnelError::Dead { .. }));
}

#[tokio::test]
async fn an_idle_tunnel_stays_up() {
    let to = server(echo).await;
    let (agent, developer) = tokio::io::duplex(1 << 16);
    // A deadline that a loaded machine keeps, a PING in each millisecond.
    let config = LivenessConfig { interval: Duration::from_millis(1), deadline: Duration::from_secs(30) };
    let (tunnel, driver) = AgentEnd::handshake(agent, config).await.unwrap();
    let driver = tokio::spawn(driver);
    let end = DeveloperEnd { liveness: config, ..DeveloperEnd::new(to.to_string().parse().unwrap()) };
    let serving = tokio::spawn(end.serve(developer, |_| {}));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(tunnel.is_alive() && !driver.is_finished() && !serving.is_finished());
    let mut stream = tunnel.open(&meta()).unwrap();
    stream.write_all(b"a").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'a');
}
