//! nf_tables rules in a namespace.
//!
//! There is one table for each address family, `ip faultlab` and `ip6 faultlab`.
//! They are created in one transaction: either all rules are there, or none. A
//! rule that names no family is in all tables; its counter is the sum. A rule has
//! its name as its comment, so `nft list ruleset` shows it. NAT in the family
//! inet needs Linux 5.2 (d164385ec572), two tables do not.
//!
//! - net/netfilter/nf_tables_api.c
//! - net/netfilter/nfnetlink.c: nfnetlink_rcv_batch

mod expression;
mod record;
mod request;

pub use self::record::RuleCounter;

use std::collections::BTreeSet;

use nix::errno::Errno;

use self::record::Record;
use self::request::TABLE;
use crate::namespace::Namespace;
use crate::netlink::nfnetlink::{Nfnetlink, Refusal, Request};
use crate::topology::Family;
use crate::topology::rule::{Hook, NAME_MAX, Rule};
use faultlab_base::error::{Error, Result};

/// A table that is never committed.
const REHEARSAL: &str = "faultlab-rehearsal";

/// The rules of a namespace. Dropping this value does not remove them; they go
/// with the namespace, which this value keeps alive.
#[derive(Debug)]
pub struct Firewall {
    nfnetlink: Nfnetlink,
    /// The families that have a table.
    families: BTreeSet<Family>,
    chains: BTreeSet<(Family, Hook)>,
    rules: Vec<Rule>,
}

impl Firewall {
    /// Installs `rules` in the namespace: all of them or, on error, none. Rules
    /// that name no family apply to the families that the other rules name, or
    /// else to IPv4.
    ///
    /// # Errors
    /// [`Error::Missing`] names what the kernel lacks: nf_tables, a family, a
    /// chain type or an expression. [`Error::Kernel`] names the rule: EEXIST if
    /// the namespace already has a firewall, EPERM without CAP_NET_ADMIN in it.
    /// [`Error::Lab`] if a name is not unique, is empty or too long, or contains
    /// a quote.
    pub fn install(namespace: &Namespace, rules: &[Rule]) -> Result<Self> {
        Self::install_for(namespace, &[], rules)
    }

    /// Like [`install`](Self::install), in a namespace that has addresses of
    /// these families: rules that name no family apply to those as well.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn install_for(namespace: &Namespace, families: &[Family], rules: &[Rule]) -> Result<Self> {
        for (i, rule) in rules.iter().enumerate() {
            check_name(namespace.name(), rule, &rules[..i])?;
        }
        let nfnetlink = Nfnetlink::open(namespace)?;
        let named = rules.iter().filter_map(Rule::family);
        let mut families: BTreeSet<_> = families.iter().copied().chain(named).collect();
        if families.is_empty() {
            families.insert(Family::V4);
        }
        let chains = chains_for(rules, &families);
        let firewall = Self { nfnetlink, families, chains, rules: rules.to_vec() };
        firewall.commit(&firewall.families, &firewall.chains, rules)?;
        Ok(firewall)
    }

    /// The rules, in order of installation.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Appends a rule to its chain.
    ///
    /// # Errors
    /// As [`install`](Self::install); the other rules stay as they were.
    pub fn append(&mut self, rule: Rule) -> Result<()> {
        check_name(self.nfnetlink.place(), &rule, &self.rules)?;
        let tables: BTreeSet<_> =
            rule.family().into_iter().filter(|family| !self.families.contains(family)).collect();
        let needed = chains_for(std::slice::from_ref(&rule), &self.families);
        let missing = needed.difference(&self.chains).copied().collect();
        self.commit(&tables, &missing, std::slice::from_ref(&rule))?;
        self.families.extend(tables);
        self.chains.extend(missing);
        self.rules.push(rule);
        Ok(())
    }

    /// Removes the rule of this name. Its chain stays.
    ///
    /// # Errors
    /// [`Error::Lab`] if there is no such rule.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let place = self.nfnetlink.place();
        let absent = || Error::Lab(format!("{place}: the firewall has no rule {name}"));
        let position = self.rules.iter().position(|rule| rule.name() == name).ok_or_else(absent)?;
        let hook = self.rules[position].hook();
        let records = self.records()?;
        let requests: Vec<_> = records
            .iter()
            .filter(|record| record.counter.rule == name)
            .map(|record| request::delete_rule(record.family, hook, record.handle))
            .collect();
        if requests.is_empty() {
            return Err(absent());
        }
        self.nfnetlink
            .commit(requests)
            .map_err(|refusal| Error::kernel(place, format!("remove rule {name}"), refusal.errno))?;
        self.rules.remove(position);
        Ok(())
    }

    /// The counters of all rules, in order of installation.
    ///
    /// # Errors
    /// If the kernel does not list the rules.
    pub fn counters(&self) -> Result<Vec<RuleCounter>> {
        let mut counters: Vec<RuleCounter> = vec![];
        for Record { counter, .. } in self.records()? {
            // A rule for both families counts in two tables.
            match counters.iter_mut().find(|known| known.rule == counter.rule) {
                Some(known) => {
                    known.packets += counter.packets;
                    known.bytes += counter.bytes;
                }
                None => counters.push(counter),
            }
        }
        counters.sort_by_key(|counter| self.rules.iter().position(|rule| rule.name() == counter.rule));
        Ok(counters)
    }

    /// The counter of the rule with this name.
    ///
    /// # Errors
    /// [`Error::Lab`] if there is no such rule.
    pub fn counter(&self, name: &str) -> Result<RuleCounter> {
        let counters = self.counters()?;
        counters
            .into_iter()
            .find(|counter| counter.rule == name)
            .ok_or_else(|| Error::Lab(format!("{}: the firewall has no rule {name}", self.nfnetlink.place())))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for family in &self.families {
            self.nfnetlink
                .dump(Some(*family), request::get_rules(), |message| {
                    records.extend(Record::decode(&message).filter(|record| record.family == *family));
                })
                .map_err(|e| Error::kernel(self.nfnetlink.place(), "list the nf_tables rules", e))?;
        }
        Ok(records)
    }

    /// Creates tables, chains and rules in one transaction.
    fn commit(
        &self,
        tables: &BTreeSet<Family>,
        chains: &BTreeSet<(Family, Hook)>,
        rules: &[Rule],
    ) -> Result<()> {
        let all: BTreeSet<_> = self.families.union(tables).copied().collect();
        let placed = rules.iter().flat_map(|rule| families_for(rule, &all).map(move |family| (family, rule)));
        let steps: Vec<_> = tables
            .iter()
            .map(|family| Step::Table(*family))
            .chain(chains.iter().map(|(family, hook)| Step::Chain(*family, *hook)))
            .chain(placed.map(|(family, rule)| Step::Rule(family, rule)))
            .collect();
        self.nfnetlink.commit(steps.iter().map(Step::request).collect()).map_err(|refusal| {
            match refusal.message.and_then(|message| steps.get(message)) {
                None => self.batch_error(&refusal),
                Some(Step::Table(family)) => self.table_error(*family, &refusal),
                Some(Step::Chain(family, hook)) => self.chain_error(*family, *hook, &refusal),
                Some(Step::Rule(family, rule)) => self.rule_error(*family, rule, &refusal),
            }
        })
    }

    fn error(&self, what: &str, errno: Errno) -> Error {
        Error::kernel(self.nfnetlink.place(), format!("nf_tables batch{what}"), errno)
    }

    fn missing(&self, what: &str, asked: &str) -> Error {
        Error::missing(what, format!("{} needs it for {asked}", self.nfnetlink.place()))
    }

    fn batch_error(&self, refusal: &Refusal) -> Error {
        match refusal.errno {
            // nfnetlink_rcv_batch: no such subsystem.
            Errno::EOPNOTSUPP => self.missing("nf_tables (CONFIG_NF_TABLES)", "its firewall"),
            errno => self.error("", errno),
        }
    }

    fn table_error(&self, family: Family, refusal: &Refusal) -> Error {
        let (name, module) = match family {
            Family::V4 => ("ip", "nf_tables_ipv4 (CONFIG_NF_TABLES_IPV4)"),
            Family::V6 => ("ip6", "nf_tables_ipv6 (CONFIG_NF_TABLES_IPV6)"),
        };
        match refusal.errno {
            Errno::EAFNOSUPPORT => self.missing(module, "its firewall"),
            errno => self.error(&format!(", table {name} {TABLE}"), errno),
        }
    }

    fn chain_error(&self, family: Family, hook: Hook, refusal: &Refusal) -> Error {
        let module = match family {
            Family::V4 => {
                "nft_chain_nat (CONFIG_NFT_NAT; before Linux 5.1 nft_chain_nat_ipv4, CONFIG_NFT_CHAIN_NAT_IPV4)"
            }
            Family::V6 => {
                "nft_chain_nat (CONFIG_NFT_NAT; before Linux 5.1 nft_chain_nat_ipv6, CONFIG_NFT_CHAIN_NAT_IPV6)"
            }
        };
        match refusal.errno {
            Errno::ENOENT if hook.is_nat() => self.missing(module, &format!("its chain {hook}")),
            errno => self.error(&format!(", chain {hook}"), errno),
        }
    }

    fn rule_error(&self, family: Family, rule: &Rule, refusal: &Refusal) -> Error {
        // A rule that is not installed yet comes after those that are; people
        // count from 1.
        let before = self.rules.iter().position(|other| other == rule).unwrap_or(self.rules.len());
        let which = format!("rule {} ({})", before + 1, rule.name());
        match self.lacking(family, rule) {
            Some(module) if refusal.errno == Errno::ENOENT => self.missing(module, &which),
            _ => self.error(&format!(", {which}"), refusal.errno),
        }
    }

    /// The first of the rule's expressions that the kernel lacks: each is tried
    /// alone, in a transaction that is never committed.
    fn lacking(&self, family: Family, rule: &Rule) -> Option<&'static str> {
        let expressions = expression::of_rule(family, rule);
        expressions.into_iter().find_map(|expression| {
            let module = expression::module(&expression)?;
            let requests = vec![
                request::new_table(family, REHEARSAL),
                request::new_chain(family, REHEARSAL, rule.hook()),
                request::new_rule_of(family, REHEARSAL, rule.hook(), expression),
            ];
            let refusal = self.nfnetlink.rehearse(requests).err()?;
            (refusal.message == Some(2) && refusal.errno == Errno::ENOENT).then_some(module)
        })
    }
}

/// A request of a transaction.
enum Step<'a> {
    Table(Family),
    Chain(Family, Hook),
    Rule(Family, &'a Rule),
}

impl Step<'_> {
    fn request(&self) -> Request {
        match *self {
            Self::Table(family) => request::new_table(family, TABLE),
            Self::Chain(family, hook) => request::new_chain(family, TABLE, hook),
            Self::Rule(family, rule) => request::new_rule(family, rule),
        }
    }
}

/// The families whose tables contain a rule, in a firewall with `families`.
fn families_for(rule: &Rule, families: &BTreeSet<Family>) -> impl Iterator<Item = Family> + use<> {
    let families = rule.family().map_or_else(|| families.iter().copied().collect(), |family| vec![family]);
    families.into_iter()
}

/// The chains that `rules` need in a firewall with tables for these families.
/// Before 4.18 the kernel translates the packets of a flow only in hooks that
/// have a nat chain, so replies need the opposite one: prerouting and postrouting
/// are opposites, and so are output and input.
fn chains_for(rules: &[Rule], families: &BTreeSet<Family>) -> BTreeSet<(Family, Hook)> {
    let hooks = |family: Family| {
        let own = rules.iter().filter(|rule| families_for(rule, families).any(|of| of == family));
        let mut hooks: BTreeSet<_> = own.map(Rule::hook).collect();
        if hooks.iter().any(|hook| hook.is_nat()) {
            hooks.extend([Hook::NatPrerouting, Hook::NatPostrouting]);
        }
        if hooks.contains(&Hook::NatOutput) || hooks.contains(&Hook::NatInput) {
            hooks.extend([Hook::NatOutput, Hook::NatInput]);
        }
        hooks.into_iter().map(move |hook| (family, hook))
    };
    Family::BOTH.into_iter().flat_map(hooks).collect()
}

fn check_name(place: &str, rule: &Rule, others: &[Rule]) -> Result<()> {
    let name = rule.name();
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_MAX {
        "is too long"
    } else if name.contains(['"', '\0']) {
        "has a quote or a NUL in it"
    } else if others.iter().any(|other| other.name() == name) {
        "is not unique"
    } else {
        return Ok(());
    };
    Err(Error::Lab(format!("{place}: the rule name {name:?} {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nat_rules_bring_the_chains_of_their_replies() {
        let v4 = BTreeSet::from([Family::V4]);
        let of_v4 = |hooks: &[Hook]| hooks.iter().map(|hook| (Family::V4, *hook)).collect::<BTreeSet<_>>();
        let filter = chains_for(&[Rule::drop("invalid")], &v4);
        assert_eq!(filter, of_v4(&[Hook::Forward]));

        let masquerade = chains_for(&[Rule::masquerade("out", "wan")], &v4);
        assert_eq!(masquerade, of_v4(&[Hook::NatPrerouting, Hook::NatPostrouting]));

        let service = Rule::destination_nat("service", ([10, 96, 0, 1], 80), ([10, 0, 2, 2], 8080));
        assert_eq!(chains_for(&[service.on(Hook::NatOutput)], &v4).len(), 4);
    }

    #[test]
    fn a_rule_has_chains_in_the_families_that_it_is_for() {
        let both = BTreeSet::from(Family::BOTH);
        assert_eq!(chains_for(&[Rule::masquerade("out", "wan")], &both).len(), 4);
        let v6 = Rule::source_nat("six", [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        assert!(chains_for(std::slice::from_ref(&v6), &both).iter().all(|(family, _)| *family == Family::V6));
        // It names a family that has no table yet.
        assert_eq!(chains_for(&[v6], &BTreeSet::from([Family::V4])).len(), 2);
    }

    #[test]
    fn names_are_checked() {
        let rule = Rule::drop("a");
        assert!(check_name("router", &rule, &[]).is_ok());
        let error = check_name("router", &rule, std::slice::from_ref(&rule)).unwrap_err();
        assert_eq!(error.to_string(), "router: the rule name \"a\" is not unique");
        for name in ["", "a\"b", &"x".repeat(NAME_MAX + 1)] {
            assert!(check_name("router", &Rule::drop(name), &[]).is_err(), "{name}");
        }
    }
}
