//! What a client sends after its TLS handshake.

use std::sync::Arc;
use std::time::Duration;

use kvstore::{Store, StoreOptions};
use mesh_apiserver::etcd_api::{Calls, Grants, Limits, serve};
use proptest::prelude::prop_assert;
use proptest::test_runner::TestCaseError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
use tokio::time::timeout;

use crate::corpus;

#[test]
fn a_connection_that_says_anything_hurts_nobody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    corpus::run("connections", |input| {
        runtime.block_on(async {
            let store = Store::in_memory(StoreOptions::default());
            store.put("a/kept", "found by the next connection").expect("put");
            let calls = Calls::new(store, Limits::default());
            let heard = said(&calls, &input.bytes).await?;
            if !input.is_changed {
                prop_assert!(!heard.is_empty(), "the stored input is not answered");
            }
            let heard = said(&calls, include_bytes!("corpus/connections/range")).await?;
            let found = heard.windows(KEPT.len()).any(|window| window == KEPT);
            prop_assert!(found, "the next connection is answered {heard:?}");
            Ok(())
        })
    });
}

/// Says it on a connection of its own, and returns what is answered. Fails if the server falls over.
async fn said(calls: &Calls, bytes: &[u8]) -> Result<Vec<u8>, TestCaseError> {
    let (client, server) = duplex(64 << 10);
    let (mut reader, mut writer) = split(client);
    let grants = Arc::new(Grants::admin());
    let serving = tokio::spawn(serve(server, calls.clone(), grants, Limits::default()));
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let (mut left, mut open) = (bytes, true);
    while open && heard.len() < MOST_BYTES {
        tokio::select! {
            written = writer.write(left), if !left.is_empty() => match written {
                Ok(written) => left = &left[written..],
                Err(_closed) => left = &[],
            },
            read = timeout(SILENCE, reader.read(&mut buffer)) => match read {
                Ok(Ok(read)) if read > 0 => heard.extend_from_slice(&buffer[..read]),
                Ok(_closed) => open = false,
                Err(_silent) => open = !left.is_empty(),
            },
        }
    }
    drop((reader, writer));
    // How it ended is the client's own affair.
    let ended = timeout(Duration::from_secs(60), serving).await;
    prop_assert!(matches!(ended, Ok(Ok(_))), "{ended:?}");
    Ok(heard)
}

const KEPT: &[u8] = b"found by the next connection";
/// Longer than any answer takes, and shorter than the server's own limits.
const SILENCE: Duration = Duration::from_secs(1);
const MOST_BYTES: usize = 1 << 20;
