//! Carries plans out on the maps.
//!
//! The order, so that no program ever follows a number to nothing or to somebody else:
//!
//! 1. backends that are new;
//! 2. for each changed frontend: its slots into a slice that nobody reads, then its entry, which swaps the slice;
//! 3. frontends that are gone;
//! 4. addresses;
//! 5. after [`GRACE`], when no program can still be on its way: old slices and unused backends.
//!
//! A step that fails leaves the rest to go on, and is tried again with the next plan: what is kept as applied is
//! what was really written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ebpf_types::{Backend, FrontendKey, ServiceEntry};
use tokio::time::Instant;

use crate::image::Image;
use crate::maps::{MapError, Maps};
use crate::plan::Plan;
use crate::slots::{Slice, SlotAllocator};

/// How long slices and backends outlive their last use. A program runs for microseconds; this is many thousand
/// times that, also on a machine whose cores are taken away for a while.
pub const GRACE: Duration = Duration::from_secs(1);

/// Owns the maps, and knows what is in them.
#[derive(Debug)]
pub struct Programmer<M> {
    maps: M,
    applied: Image,
    ids: BTreeMap<Backend, u32>,
    uses: BTreeMap<Backend, usize>,
    taken: BTreeSet<u32>,
    next_id: u32,
    services: BTreeMap<FrontendKey, ServiceEntry>,
    /// Frontends found in the kernel whose entries make no sense: the first plan sets them anew, or they go.
    senseless: BTreeSet<FrontendKey>,
    next_service: u32,
    slots: SlotAllocator,
    retired: VecDeque<(Instant, Retired)>,
}

/// What waits for the end of its grace period.
#[derive(Debug)]
enum Retired {
    Slice(Slice),
    Backend(Backend),
}

/// What became of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps done.
    pub done: usize,
    /// Steps that failed, with the object; they are tried again.
    pub failures: Vec<String>,
}

impl<M: Maps> Programmer<M> {
    /// Takes over maps as they are: ids, slices and content are read back before anything is written. An entry
    /// that makes no sense (a slice outside the array, or shared by two services, or one that names no backend) is
    /// left out of what is applied, so that the next plan writes it anew; if that does not want it, it goes then.
    pub fn recover(mut maps: M) -> Result<Self, MapError> {
        let dump = maps.dump()?;
        let mut slots = SlotAllocator::new(maps.slot_capacity());
        let mut applied = Image { ipcache: dump.ipcache, ..Image::default() };
        let mut services = BTreeMap::new();
        let mut senseless = BTreeSet::new();
        for (key, entry) in dump.services {
            let slice = slice_of(&entry);
            if !slots.take_exactly(slice) {
                senseless.insert(key);
                continue;
            }
            let ids = maps.slots(slice.offset, slice.len)?;
            let mut backends: Vec<Backend> =
                ids.iter().filter_map(|id| dump.backends.get(id)).copied().collect();
            backends.sort_unstable();
            backends.dedup();
            services.insert(key, entry);
            if backends.len() == slice.len as usize {
                applied.frontends.insert(key, backends);
            } else {
                senseless.insert(key);
            }
        }
        let next_id = dump.backends.keys().next_back().map_or(1, |id| following(*id));
        let next_service = services.values().map(|e| e.service_id).max().map_or(1, following);
        let ids: BTreeMap<Backend, u32> = dump.backends.iter().map(|(id, backend)| (*backend, *id)).collect();
        let mut programmer = Self {
            maps,
            applied,
            taken: ids.values().copied().collect(),
            ids,
            uses: BTreeMap::new(),
            next_id,
            services,
            senseless,
            next_service,
            slots,
            retired: VecDeque::new(),
        };
        programmer.count_uses();
        // Of two ids for one backend the higher is known; the other, and what nobody uses, goes.
        for id in dump.backends.into_keys().filter(|id| !programmer.taken.contains(id)) {
            programmer.maps.remove_backend(id)?;
        }
        let unused: Vec<Backend> =
            programmer.ids.keys().filter(|b| !programmer.uses.contains_key(b)).copied().collect();
        programmer.retired.extend(unused.into_iter().map(|b| (Instant::now() + GRACE, Retired::Backend(b))));
        Ok(programmer)
    }

    /// Reads the kernel again, as [`Self::recover`] does, and says how many entries were not as they should be.
    /// Backends that wait for the end of their grace period are found again as unused; slices go on waiting.
    pub fn audit(self) -> Result<(Self, usize), MapError> {
        let (believed, mut waiting) = (self.applied, self.retired);
        let mut programmer = Self::recover(self.maps)?;
        let drift = Plan::between(&programmer.applied, &believed).len();
        let slots = &mut programmer.slots;
        waiting.retain(|(_, retired)| matches!(retired, Retired::Slice(slice) if slots.take_exactly(*slice)));
        waiting.append(&mut programmer.retired);
        programmer.retired = waiting;
        Ok((programmer, drift))
    }

    /// What the maps hold, as far as it was written or read back.
    pub fn applied(&self) -> &Image {
        &self.applied
    }

    /// The id under which a backend is known to the programs.
    pub fn backend_id(&self, backend: &Backend) -> Option<u32> {
        self.ids.get(backend).copied()
    }

    /// Free slots, for the gauge of map pressure.
    pub fn available_slots(&self) -> u32 {
        self.slots.available()
    }

    /// Number of backends in the maps.
    pub fn backends(&self) -> usize {
        self.ids.len()
    }

    /// The maps themselves.
    pub fn maps_mut(&mut self) -> &mut M {
        &mut self.maps
    }

    /// Carries `plan` out, which must be one from what is applied to all that is wanted. O(plan), and O(backends) for
    /// each changed frontend.
    pub fn apply(&mut self, mut plan: Plan, now: Instant) -> Outcome {
        let mut outcome = self.release(now);
        let unwanted = |key: &&FrontendKey| !plan.set_frontends.iter().any(|(wanted, _)| wanted == *key);
        plan.remove_frontends.extend(self.senseless.iter().filter(unwanted).copied().collect::<Vec<_>>());
        let mut step = |object: &dyn Fn() -> String, result: Result<(), MapError>| match result {
            Ok(()) => outcome.done += 1,
            Err(error) => outcome.failures.push(format!("{}: {error}", object())),
        };
        for (key, backends) in plan.set_frontends {
            let result = self.set_frontend(key, backends, now);
            step(&|| format!("frontend {}", key.socket_addr()), result);
        }
        for key in plan.remove_frontends {
            let result = self.remove_frontend(key, now);
            step(&|| format!("frontend {}", key.socket_addr()), result);
        }
        for (key, entry) in plan.set_addresses {
            let result = self.maps.set_address(key, entry);
            if result.is_ok() {
                self.applied.ipcache.insert(key, entry);
            }
            step(&|| format!("address {}", key.prefix().0), result);
        }
        for key in plan.remove_addresses {
            let result = self.maps.remove_address(key);
            if result.is_ok() {
                self.applied.ipcache.remove(&key);
            }
            step(&|| format!("address {}", key.prefix().0), result);
        }
        outcome
    }

    /// When the next grace period ends, if any is under way.
    pub fn next_release(&self) -> Option<Instant> {
        self.retired.front().map(|(at, _)| *at)
    }

    /// Gives back what has waited long enough.
    pub fn release(&mut self, now: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        while self.retired.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, retired)) = self.retired.pop_front() else { break };
            match retired {
                Retired::Slice(slice) => self.slots.give_back(slice),
                Retired::Backend(backend) if self.uses.contains_key(&backend) => {}
                Retired::Backend(backend) => {
                    let Some(id) = self.ids.get(&backend).copied() else { continue };
                    match self.maps.remove_backend(id) {
                        Ok(()) => {
                            self.ids.remove(&backend);
                            self.taken.remove(&id);
                        }
                        Err(error) => {
                            outcome.failures.push(format!("backend {}: {error}", backend.socket_addr()));
                            self.retired.push_back((now + GRACE, Retired::Backend(backend)));
                            break;
                        }
                    }
                }
            }
        }
        outcome
    }

    fn set_frontend(
        &mut self,
        key: FrontendKey,
        backends: Vec<Backend>,
        now: Instant,
    ) -> Result<(), MapError> {
        let len = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        let Some(slice) = self.slots.take(len) else {
            let what = format!("no run of {len} free slots ({} free in all)", self.slots.available());
            return Err(MapError { map: "slots", what });
        };
        let entry = match self.write_service(key, slice, &backends) {
            Ok(entry) => entry,
            Err(error) => {
                self.slots.give_back(slice);
                return Err(error);
            }
        };
        self.senseless.remove(&key);
        let before = self.services.insert(key, entry);
        self.retired.extend(before.map(|old| (now + GRACE, Retired::Slice(slice_of(&old)))));
        for backend in &backends {
            *self.uses.entry(*backend).or_default() += 1;
        }
        let old = self.applied.frontends.insert(key, backends);
        self.unuse(old.unwrap_or_default(), now);
        Ok(())
    }

    fn write_service(
        &mut self,
        key: FrontendKey,
        slice: Slice,
        backends: &[Backend],
    ) -> Result<ServiceEntry, MapError> {
        let ids: Vec<u32> = backends.iter().map(|backend| self.id_of(*backend)).collect::<Result<_, _>>()?;
        self.maps.set_slots(slice.offset, &ids)?;
        let service_id = match self.services.get(&key) {
            Some(entry) => entry.service_id,
            None => {
                let id = self.next_service;
                self.next_service = following(id);
                id
            }
        };
        let entry = ServiceEntry { slots_offset: slice.offset, slots_count: slice.len, service_id, flags: 0 };
        self.maps.set_service(key, entry)?;
        Ok(entry)
    }

    fn remove_frontend(&mut self, key: FrontendKey, now: Instant) -> Result<(), MapError> {
        self.maps.remove_service(key)?;
        let before = self.services.remove(&key);
        self.retired.extend(before.map(|old| (now + GRACE, Retired::Slice(slice_of(&old)))));
        self.senseless.remove(&key);
        let old = self.applied.frontends.remove(&key);
        self.unuse(old.unwrap_or_default(), now);
        Ok(())
    }

    /// The id of a backend, which is written first if it is new. A number is not used again until all have been.
    fn id_of(&mut self, backend: Backend) -> Result<u32, MapError> {
        if let Some(id) = self.ids.get(&backend) {
            return Ok(*id);
        }
        while self.taken.contains(&self.next_id) {
            self.next_id = following(self.next_id);
        }
        let id = self.next_id;
        self.maps.set_backend(id, backend)?;
        self.ids.insert(backend, id);
        self.taken.insert(id);
        self.next_id = following(id);
        Ok(id)
    }

    fn unuse(&mut self, backends: Vec<Backend>, now: Instant) {
        for backend in backends {
            if let Some(uses) = self.uses.get_mut(&backend) {
                *uses -= 1;
                if *uses == 0 {
                    self.uses.remove(&backend);
                    self.retired.push_back((now + GRACE, Retired::Backend(backend)));
                }
            }
        }
    }

    fn count_uses(&mut self) {
        for backend in self.applied.frontends.values().flatten() {
            *self.uses.entry(*backend).or_default() += 1;
        }
    }
}

/// The next number; 0 is none.
fn following(number: u32) -> u32 {
    number.wrapping_add(1).max(1)
}

fn slice_of(entry: &ServiceEntry) -> Slice {
    let (offset, len) = match entry.slots_count {
        0 => (0, 0),
        count => (entry.slots_offset, count),
    };
    Slice { offset, len }
}

#[cfg(test)]
mod tests;
