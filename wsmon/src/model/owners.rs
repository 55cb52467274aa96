//! Who owns each slot.

use super::connection::Connection;

/// Slots beyond this are not believed: a record that names one is broken.
const MAX_SLOTS: usize = 1 << 22;

#[derive(Debug)]
pub enum Owner {
    Nobody,
    Current(Box<Connection>),
    /// The connection of this generation is counted and given back; the slot may still show it
    /// for a while.
    Released(u32),
}

/// Owners by slot. Slots are dense, and every sweep looks at all of them.
#[derive(Debug, Default)]
pub struct Owners(Vec<Owner>);

impl Owners {
    pub fn get(&self, slot: u32) -> &Owner {
        self.0.get(slot as usize).unwrap_or(&Owner::Nobody)
    }

    pub fn current(&self, slot: u32) -> Option<&Connection> {
        match self.get(slot) {
            Owner::Current(connection) => Some(connection),
            Owner::Nobody | Owner::Released(_) => None,
        }
    }

    pub fn current_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        match self.0.get_mut(slot as usize)? {
            Owner::Current(connection) => Some(connection),
            Owner::Nobody | Owner::Released(_) => None,
        }
    }

    /// Gives the slot another owner; gives the one before.
    pub fn replace(&mut self, slot: u32, owner: Owner) -> Owner {
        let slot = slot as usize;
        if slot >= MAX_SLOTS {
            return Owner::Nobody;
        }
        if slot >= self.0.len() {
            self.0.resize_with(slot + 1, || Owner::Nobody);
        }
        std::mem::replace(&mut self.0[slot], owner)
    }

    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.0.iter().filter_map(|owner| match owner {
            Owner::Current(connection) => Some(&**connection),
            Owner::Nobody | Owner::Released(_) => None,
        })
    }

    /// Forgets the connections that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&Connection) -> bool) {
        for owner in &mut self.0 {
            if matches!(owner, Owner::Current(connection) if !keep(connection)) {
                *owner = Owner::Nobody;
            }
        }
    }
}
