//! The programmer against maps in memory: what a client would find there, after every step.

use super::*;
use crate::maps::MemoryMaps;
use ebpf_types::{IpcacheEntry, IpcacheKey, Protocol};
use proptest::prelude::*;

fn frontend(n: u8) -> FrontendKey {
    FrontendKey::new(format!("10.96.0.{n}:80").parse().expect("an address"), Protocol::Tcp)
}

fn backend(n: u8) -> Backend {
    Backend::new(
        format!("10.{}.0.{n}:8080", 1 + n % 3).parse().expect("an address"),
        Protocol::Tcp,
        u16::from(1 + n % 3),
    )
}

fn image(frontends: &[(u8, Vec<u8>)], addresses: &[u8]) -> Image {
    let backends = |ns: &Vec<u8>| {
        let set: BTreeSet<Backend> = ns.iter().map(|n| backend(*n)).collect();
        set.into_iter().collect()
    };
    let address = |n: &u8| {
        let ip = format!("10.9.0.{n}").parse().expect("an address");
        (IpcacheKey::host(ip), IpcacheEntry::new(70_000 + u32::from(*n), 1, None))
    };
    Image {
        frontends: frontends.iter().map(|(k, ns)| (frontend(*k), backends(ns))).collect(),
        ipcache: addresses.iter().map(address).collect(),
    }
}

/// What clients find: each frontend with the backends that its slots lead to. Fails if a slot leads nowhere.
fn seen(maps: &mut MemoryMaps) -> Image {
    let dump = maps.dump().expect("memory");
    let mut image = Image { ipcache: dump.ipcache.clone(), ..Image::default() };
    for (key, entry) in &dump.services {
        let ids = maps.slots(entry.slots_offset, entry.slots_count).expect("inside the array");
        let mut backends: Vec<Backend> = ids.iter().map(|id| dump.backends[id]).collect();
        backends.sort_unstable();
        image.frontends.insert(*key, backends);
    }
    image
}

fn step(programmer: &mut Programmer<MemoryMaps>, image: &Image, now: Instant) -> Outcome {
    let plan = Plan::between(programmer.applied(), image);
    programmer.apply(plan, now)
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_ids_and_writes_nothing() {
    let wanted = image(&[(1, vec![1, 2, 3]), (2, vec![2, 9]), (3, vec![])], &[5]);
    let mut programmer = Programmer::recover(MemoryMaps::new(64)).expect("memory");
    assert_eq!(step(&mut programmer, &wanted, Instant::now()).failures, Vec::<String>::new());
    let before = programmer.maps_mut().dump().expect("memory");

    let mut restarted = Programmer::recover(programmer.maps_mut().clone()).expect("memory");
    assert_eq!(restarted.applied(), &wanted);
    assert!(Plan::between(restarted.applied(), &wanted).is_empty());
    assert_eq!(restarted.maps_mut().dump().expect("memory"), before);
    assert_eq!(restarted.backend_id(&backend(9)), programmer.backend_id(&backend(9)));
}

#[tokio::test(start_paused = true)]
async fn old_slices_and_backends_go_only_after_the_grace_period() {
    let mut programmer = Programmer::recover(MemoryMaps::new(4)).expect("memory");
    let start = Instant::now();
    step(&mut programmer, &image(&[(1, vec![1, 2])], &[]), start);
    step(&mut programmer, &image(&[(1, vec![3, 4])], &[]), start);
    assert_eq!(programmer.available_slots(), 0);
    assert_eq!(programmer.backends(), 4, "the old ones may still be on a program's way");
    programmer.release(start + GRACE);
    assert_eq!((programmer.available_slots(), programmer.backends()), (2, 2));
    assert_eq!(programmer.next_release(), None);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_comes_back_in_time_keeps_its_id() {
    let mut programmer = Programmer::recover(MemoryMaps::new(64)).expect("memory");
    let start = Instant::now();
    step(&mut programmer, &image(&[(1, vec![1, 2])], &[]), start);
    let id = programmer.backend_id(&backend(2));
    step(&mut programmer, &image(&[(1, vec![1])], &[]), start);
    step(&mut programmer, &image(&[(1, vec![1, 2])], &[]), start);
    programmer.release(start + 2 * GRACE);
    assert_eq!(programmer.backend_id(&backend(2)), id);
    assert!(id.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_full_map_fails_one_frontend_and_no_other() {
    let mut programmer = Programmer::recover(MemoryMaps::new(4)).expect("memory");
    let wanted = image(&[(1, vec![1, 2]), (2, vec![1, 2, 3, 4]), (3, vec![5])], &[]);
    let outcome = step(&mut programmer, &wanted, Instant::now());
    assert_eq!(
        outcome.failures,
        ["frontend 10.96.0.2:80: map slots: no run of 4 free slots (2 free in all)"]
    );
    let clients = seen(programmer.maps_mut());
    assert_eq!(clients.frontends.keys().copied().collect::<Vec<_>>(), [frontend(1), frontend(3)]);
    // With room again, the same wish is carried out.
    let smaller = image(&[(2, vec![1, 2, 3, 4])], &[]);
    let now = Instant::now();
    step(&mut programmer, &image(&[], &[]), now);
    assert_eq!(step(&mut programmer, &smaller, now + GRACE).failures, Vec::<String>::new());
    assert_eq!(seen(programmer.maps_mut()), smaller);
}

#[tokio::test(start_paused = true)]
async fn an_audit_finds_and_mends_what_somebody_else_changed() {
    let wanted = image(&[(1, vec![1, 2]), (2, vec![3])], &[1, 2]);
    let mut programmer = Programmer::recover(MemoryMaps::new(64)).expect("memory");
    step(&mut programmer, &wanted, Instant::now());
    let stranger = programmer.maps_mut();
    stranger.remove_service(frontend(1)).expect("memory");
    stranger.remove_address(*wanted.ipcache.keys().next().expect("two")).expect("memory");
    let (mut programmer, drift) = programmer.audit().expect("memory");
    assert_eq!(drift, 2);
    step(&mut programmer, &wanted, Instant::now());
    assert_eq!(seen(programmer.maps_mut()), wanted);
}

#[tokio::test(start_paused = true)]
async fn entries_that_make_no_sense_are_written_anew_or_go() {
    let mut maps = MemoryMaps::new(8);
    maps.set_backend(7, backend(1)).expect("memory");
    maps.set_slots(0, &[7, 9]).expect("memory");
    let entry =
        |offset, count| ServiceEntry { slots_offset: offset, slots_count: count, service_id: 1, flags: 0 };
    // A slot without a backend, a slice of somebody else, and one outside the array.
    for (n, entry) in [(1, entry(0, 2)), (2, entry(1, 1)), (3, entry(100, 1))] {
        maps.set_service(frontend(n), entry).expect("memory");
    }
    let mut programmer = Programmer::recover(maps).expect("memory");
    assert_eq!(programmer.applied(), &Image::default());
    let wanted = image(&[(1, vec![1])], &[]);
    assert_eq!(step(&mut programmer, &wanted, Instant::now()).failures, Vec::<String>::new());
    assert_eq!(seen(programmer.maps_mut()), wanted);
}

#[tokio::test(start_paused = true)]
async fn an_audit_does_not_end_a_grace_period() {
    let mut programmer = Programmer::recover(MemoryMaps::new(4)).expect("memory");
    let start = Instant::now();
    step(&mut programmer, &image(&[(1, vec![1, 2])], &[]), start);
    step(&mut programmer, &image(&[(1, vec![3])], &[]), start);
    let (mut programmer, drift) = programmer.audit().expect("memory");
    assert_eq!((drift, programmer.available_slots(), programmer.backends()), (0, 1, 3));
    programmer.release(start + GRACE);
    assert_eq!((programmer.available_slots(), programmer.backends()), (3, 1));
}

fn any_image() -> impl Strategy<Value = Image> {
    let frontends = prop::collection::btree_map(0u8..5, prop::collection::vec(0u8..12, 0..6), 0..5);
    let addresses = prop::collection::vec(0u8..6, 0..6);
    (frontends, addresses).prop_map(|(f, a)| image(&f.into_iter().collect::<Vec<_>>(), &a))
}

proptest! {
    /// Step by step, with restarts and full maps in between, clients always find the old list or the new one, and
    /// in the end the maps hold what a fresh start from a dump would have made of them.
    #[test]
    fn the_maps_follow_the_image(images in prop::collection::vec((any_image(), any::<bool>(), prop::option::of(0usize..12)), 1..12)) {
        let mut programmer = Programmer::recover(MemoryMaps::new(200)).expect("memory");
        let mut now = Instant::now();
        for (wanted, restart, writes_left) in images {
            let before = seen(programmer.maps_mut());
            programmer.maps_mut().writes_left = writes_left;
            let outcome = step(&mut programmer, &wanted, now);
            programmer.maps_mut().writes_left = None;
            let after = seen(programmer.maps_mut());
            prop_assert_eq!(&after, programmer.applied());
            if outcome.failures.is_empty() {
                prop_assert_eq!(&after, &wanted);
            }
            for (key, backends) in &after.frontends {
                let old = before.frontends.get(key);
                prop_assert!(wanted.frontends.get(key) == Some(backends) || old == Some(backends));
            }
            if restart {
                programmer = Programmer::recover(programmer.maps_mut().clone()).expect("memory");
                prop_assert_eq!(&after, programmer.applied());
            }
            let outcome = step(&mut programmer, &wanted, now);
            prop_assert!(outcome.failures.is_empty(), "{:?}", outcome);
            now += GRACE / 2;
        }
        programmer.release(now + 10 * GRACE);
        let used: BTreeSet<Backend> = programmer.applied().frontends.values().flatten().copied().collect();
        prop_assert_eq!(programmer.backends(), used.len(), "no backend is left behind");
        let slots: usize = programmer.applied().frontends.values().map(Vec::len).sum();
        prop_assert_eq!(programmer.available_slots() as usize, 200 - slots, "no slot is left behind");
    }
}
