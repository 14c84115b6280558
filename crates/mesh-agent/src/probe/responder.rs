//! Answers the probes of other agents.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::sleep;
use tracing::debug;

use super::packet::{LEN, Packet};

/// Answers probes on `socket` for ever: each with one packet of the same length, and no state.
pub async fn respond(socket: UdpSocket) -> std::convert::Infallible {
    // One byte more, so that a longer packet is seen to be one.
    let mut buffer = [0; LEN + 1];
    loop {
        let received = socket.recv_from(&mut buffer).await;
        let (len, from) = match received {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "receive a probe");
                sleep(PAUSE).await;
                continue;
            }
        };
        if let Some(Packet::Probe { nonce }) = buffer.get(..len).and_then(Packet::decode) {
            let seen = SocketAddr::new(from.ip().to_canonical(), from.port());
            let answer = Packet::Answer { nonce, seen }.encode();
            // A lost answer is what probes are there to notice.
            if let Err(error) = socket.send_to(&answer, from).await {
                debug!(%error, %from, "answer a probe");
            }
        }
    }
}

/// After a failed receive, which an ICMP error to an earlier answer can cause.
const PAUSE: Duration = Duration::from_millis(1);
