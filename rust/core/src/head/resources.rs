//! What the node offers beside workers, and who has how much of it.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::Amounts;
use crate::message::{Demand, GPU, Shortage, WHOLE};

/// A demand, its resources by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) cpu: u64,
    pub(super) others: Vec<(usize, u64)>,
}

/// What a worker has beside its slot, from the assignment of its run to the run's end.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) need: Need,
    /// The devices it was given, and how much of each.
    devices: Vec<(u32, u64)>,
}

impl Holding {
    pub(super) fn gpus(&self) -> Vec<u32> {
        self.devices.iter().map(|(device, _)| *device).collect()
    }

    /// How much it has of a resource.
    pub(super) fn of(&self, resource: usize) -> u64 {
        self.need.others.iter().find(|(number, _)| *number == resource).map_or(0, |(_, amount)| *amount)
    }
}

#[derive(Debug)]
struct Resource {
    name: Arc<str>,
    offered: u64,
    free: u64,
}

impl Resource {
    /// Whether `amount` can be taken of what is free.
    fn fits(&self, amount: u64, free: u64, gpus: &[u64]) -> bool {
        amount <= free && (*self.name != *GPU || devices_of(gpus, amount).is_some())
    }
}

/// Devices of which `amount` is free: all of some, or a part of the one that is fullest already.
fn devices_of(gpus: &[u64], amount: u64) -> Option<Vec<(u32, u64)>> {
    if amount < WHOLE {
        let open = (0u32..).zip(gpus).filter(|(_, free)| **free >= amount);
        return open.min_by_key(|(_, free)| **free).map(|(device, _)| vec![(device, amount)]);
    }
    let count = (amount / WHOLE) as usize;
    let free = (0u32..).zip(gpus).filter(|(_, free)| **free == WHOLE);
    let found: Vec<(u32, u64)> = free.take(count).map(|(device, _)| (device, WHOLE)).collect();
    (found.len() == count).then_some(found)
}

/// The ledger. CPUs are not in it: who has them follows from who runs.
#[derive(Debug, Default)]
pub(super) struct Resources {
    all: Vec<Resource>,
    /// What is free of each GPU. A share of one is all of the same device.
    gpus: Vec<u64>,
}

impl Resources {
    pub(super) fn new(offers: &[(Arc<str>, u64)]) -> Self {
        let mut gpus = 0;
        let mut all = Vec::with_capacity(offers.len());
        for (name, offered) in offers {
            let mut offered = *offered;
            if **name == *GPU {
                // There are no parts of devices.
                gpus = (offered / WHOLE) as usize;
                offered = gpus as u64 * WHOLE;
            }
            all.push(Resource { name: name.clone(), offered, free: offered });
        }
        Self { all, gpus: vec![WHOLE; gpus] }
    }

    /// The numbers of a demand's resources. The error says what there is never enough of.
    pub(super) fn resolve(&self, demand: &Demand, slots: u32) -> Result<Need, Shortage> {
        let short = |resource: &Arc<str>, asked, offered| {
            let resource = resource.clone();
            Shortage { resource, asked, offered, held: 0 }
        };
        let cpus = u64::from(slots) * WHOLE;
        if demand.cpu > cpus {
            return Err(short(&"CPU".into(), demand.cpu, cpus));
        }
        let mut others = Vec::with_capacity(demand.others.len());
        for (name, asked) in demand.others.iter().filter(|(_, asked)| *asked > 0) {
            let found = self.all.iter().position(|resource| resource.name == *name);
            let number = found.ok_or_else(|| short(name, *asked, 0))?;
            let offered = self.all[number].offered;
            if *asked > offered {
                return Err(short(name, *asked, offered));
            }
            others.push((number, *asked));
        }
        Ok(Need { cpu: demand.cpu, others })
    }

    /// Whether there is enough of everything now.
    pub(super) fn has(&self, need: &Need) -> bool {
        need.others.iter().all(|&(number, amount)| self.all[number].fits(amount, self.all[number].free, &self.gpus))
    }

    /// The first resource of which a need will find too little though all but these holdings were given back.
    pub(super) fn lacks_beside<'a>(&self, need: &Need, kept: impl Iterator<Item = &'a Holding>) -> Option<usize> {
        let (free, gpus) = self.free_beside(kept)?;
        let lacks = |(number, amount): &&(usize, u64)| !self.all[*number].fits(*amount, free[*number], &gpus);
        need.others.iter().find(lacks).map(|(number, _)| *number)
    }

    /// Takes what is free.
    pub(super) fn take(&mut self, need: &Need) -> Holding {
        let mut devices = Vec::new();
        for &(number, amount) in &need.others {
            if *self.all[number].name == *GPU {
                devices = devices_of(&self.gpus, amount).expect("nothing is taken that is not there");
            }
            self.all[number].free -= amount;
        }
        for &(device, amount) in &devices {
            self.gpus[device as usize] -= amount;
        }
        Holding { need: need.clone(), devices }
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, holding: &Holding) {
        for &(number, amount) in &holding.need.others {
            self.all[number].free += amount;
        }
        for &(device, amount) in &holding.devices {
            self.gpus[device as usize] += amount;
        }
    }

    pub(super) fn offered(&self, resource: usize) -> u64 {
        self.all[resource].offered
    }

    pub(super) fn name(&self, resource: usize) -> Arc<str> {
        self.all[resource].name.clone()
    }

    /// What is offered and what is free of each resource, by name.
    pub(super) fn amounts(&self) -> (Amounts, Amounts) {
        let of = |amount: fn(&Resource) -> u64| self.all.iter().map(|r| (r.name.clone(), amount(r))).collect();
        (of(|resource| resource.offered), of(|resource| resource.free))
    }

    /// What is free of each resource, and of each GPU. For [`super::Head::check`].
    pub(super) fn free(&self) -> (Vec<u64>, &[u64]) {
        (self.all.iter().map(|resource| resource.free).collect(), &self.gpus)
    }

    /// What would be free of each resource, and of each GPU, if these were all that is held; `None` if that is more
    /// than there is.
    pub(super) fn free_beside<'a>(&self, held: impl Iterator<Item = &'a Holding>) -> Option<(Vec<u64>, Vec<u64>)> {
        let mut free: Vec<u64> = self.all.iter().map(|resource| resource.offered).collect();
        let mut gpus = vec![WHOLE; self.gpus.len()];
        for holding in held {
            for &(number, amount) in &holding.need.others {
                free[number] = free[number].checked_sub(amount)?;
            }
            for &(device, amount) in &holding.devices {
                gpus[device as usize] = gpus[device as usize].checked_sub(amount)?;
            }
        }
        Some((free, gpus))
    }
}
