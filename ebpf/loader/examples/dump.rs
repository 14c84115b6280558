//! Prints the maps that an agent pinned, beside the running agent:
//! `cargo run -p ebpf-loader --example dump -- /sys/fs/bpf/isthmus`

use std::error::Error;
use std::path::PathBuf;

use ebpf_loader::Maps;

fn main() -> Result<(), Box<dyn Error>> {
    let pin_dir: PathBuf = std::env::args_os().nth(1).ok_or("usage: dump PIN_DIR")?.into();
    let maps = Maps::open_pinned(&pin_dir)?;
    for (key, entry) in maps.services.dump()? {
        let protocol =
            key.protocol().map_or_else(|| key.protocol.to_string(), |protocol| protocol.to_string());
        println!("service {}/{protocol} id {}", key.socket_addr(), entry.service_id);
        for id in maps.slots.read(entry.slots_offset, entry.slots_count)? {
            match maps.backends.get(&id)? {
                Some(backend) => {
                    println!("  backend {id} {} cluster {}", backend.socket_addr(), backend.cluster_id);
                }
                None => println!("  backend {id} absent"),
            }
        }
    }
    println!("backends {}", maps.backends.dump()?.len());
    for (key, entry) in maps.ipcache.dump()? {
        let (ip, len) = key.prefix();
        println!(
            "ipcache {ip}/{len} identity {} cluster {} node {}",
            entry.identity, entry.cluster_id, entry.node
        );
    }
    for (key, frontend) in maps.reverse.dump()? {
        println!("reverse socket {} {} -> {}", key.cookie, key.socket_addr(), frontend.socket_addr());
    }
    for (counter, value) in maps.counters()?.iter() {
        println!("counter {} {value}", counter.name());
    }
    Ok(())
}
