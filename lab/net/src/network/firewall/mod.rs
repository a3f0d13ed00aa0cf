//! nf_tables rules in a namespace.
//!
//! Everything is one table, `ip faultlab`, made in one transaction: either all
//! rules are there, or none. A rule carries its name as its comment, so that
//! `nft list ruleset` shows it too.
//!
//! - net/netfilter/nf_tables_api.c
//! - net/netfilter/nfnetlink.c: nfnetlink_rcv_batch

mod expression;
mod record;
mod request;

use std::collections::BTreeSet;
use std::fmt;

use nix::errno::Errno;

use self::record::Record;
use crate::network::Namespace;
use crate::network::nfnetlink::{Nfnetlink, Refusal};
use crate::topology::rule::{Hook, NAME_MAX, Rule};
use faultlab_base::error::{Error, Result};

/// The table of a firewall, in the family ip.
const TABLE: &str = "faultlab";

/// A table that is never committed.
const REHEARSAL: &str = "faultlab-rehearsal";

/// The rules of a namespace. They stay when this value goes; they go with the
/// namespace, which this value holds alive.
#[derive(Debug)]
pub struct Firewall {
    nfnetlink: Nfnetlink,
    chains: BTreeSet<Hook>,
    rules: Vec<Rule>,
}

/// What a rule counted since it was installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule's name.
    pub rule: String,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

impl fmt::Display for RuleCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: packets {} bytes {}", self.rule, self.packets, self.bytes)
    }
}

impl Firewall {
    /// Installs `rules` in the namespace: all of them or, on an error, nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] names what the kernel lacks: nf_tables, a family, a
    /// type of chain or an expression. [`Error::Kernel`] names the rule: EEXIST
    /// where the namespace has a firewall, EPERM without CAP_NET_ADMIN in it.
    /// [`Error::Lab`] where a name is not unique, empty, too long or has a quote.
    pub fn install(namespace: &Namespace, rules: &[Rule]) -> Result<Self> {
        for (i, rule) in rules.iter().enumerate() {
            check_name(namespace.name(), rule, &rules[..i])?;
        }
        let nfnetlink = Nfnetlink::open(namespace)?;
        let firewall = Self { nfnetlink, chains: chains_for(rules), rules: rules.to_vec() };
        firewall.commit(true, &firewall.chains, rules)?;
        Ok(firewall)
    }

    /// The rules, in the order in which they were installed.
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
        let needed = chains_for(std::slice::from_ref(&rule));
        let missing = needed.difference(&self.chains).copied().collect();
        self.commit(false, &missing, std::slice::from_ref(&rule))?;
        self.chains.extend(missing);
        self.rules.push(rule);
        Ok(())
    }

    /// Removes the rule of this name. Its chain stays.
    ///
    /// # Errors
    /// [`Error::Lab`] where there is no such rule.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let place = self.nfnetlink.place();
        let absent = || Error::Lab(format!("{place}: the firewall has no rule {name}"));
        let position = self.rules.iter().position(|rule| rule.name() == name).ok_or_else(absent)?;
        let records = self.records()?;
        let record = records.iter().find(|record| record.counter.rule == name).ok_or_else(absent)?;
        let request = request::delete_rule(self.rules[position].hook(), record.handle);
        self.nfnetlink
            .commit(vec![request])
            .map_err(|refusal| Error::kernel(place, format!("remove rule {name}"), refusal.errno))?;
        self.rules.remove(position);
        Ok(())
    }

    /// What every rule counted, in the order in which they were installed.
    ///
    /// # Errors
    /// Where the kernel does not list the rules.
    pub fn counters(&self) -> Result<Vec<RuleCounter>> {
        let mut counters: Vec<_> = self.records()?.into_iter().map(|record| record.counter).collect();
        counters.sort_by_key(|counter| self.rules.iter().position(|rule| rule.name() == counter.rule));
        Ok(counters)
    }

    /// What the rule of this name counted.
    ///
    /// # Errors
    /// [`Error::Lab`] where there is no such rule.
    pub fn counter(&self, name: &str) -> Result<RuleCounter> {
        let counters = self.counters()?;
        counters
            .into_iter()
            .find(|counter| counter.rule == name)
            .ok_or_else(|| Error::Lab(format!("{}: the firewall has no rule {name}", self.nfnetlink.place())))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.nfnetlink
            .dump(request::get_rules(), |message| records.extend(Record::decode(&message)))
            .map_err(|e| Error::kernel(self.nfnetlink.place(), "list the nf_tables rules", e))?;
        Ok(records)
    }

    fn commit(&self, table: bool, chains: &BTreeSet<Hook>, rules: &[Rule]) -> Result<()> {
        let requests = table
            .then(|| request::new_table(TABLE))
            .into_iter()
            .chain(chains.iter().map(|hook| request::new_chain(TABLE, *hook)))
            .chain(rules.iter().map(request::new_rule))
            .collect();
        self.nfnetlink.commit(requests).map_err(|refusal| {
            let table = usize::from(table);
            match refusal.message {
                None => self.batch_error(&refusal),
                Some(i) if i < table => self.table_error(&refusal),
                Some(i) if i < table + chains.len() => {
                    let hook = chains.iter().nth(i - table).expect("i is in range");
                    self.chain_error(*hook, &refusal)
                }
                Some(i) => match rules.get(i - table - chains.len()) {
                    Some(rule) => self.rule_error(rule, &refusal),
                    None => self.batch_error(&refusal),
                },
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

    fn table_error(&self, refusal: &Refusal) -> Error {
        match refusal.errno {
            Errno::EAFNOSUPPORT => self.missing("nf_tables_ipv4 (CONFIG_NF_TABLES_IPV4)", "its firewall"),
            errno => self.error(&format!(", table ip {TABLE}"), errno),
        }
    }

    fn chain_error(&self, hook: Hook, refusal: &Refusal) -> Error {
        match refusal.errno {
            Errno::ENOENT if hook.is_nat() => self.missing(
                "nft_chain_nat (CONFIG_NFT_NAT; before Linux 5.1 nft_chain_nat_ipv4, CONFIG_NFT_CHAIN_NAT_IPV4)",
                &format!("its chain {hook}"),
            ),
            errno => self.error(&format!(", chain {hook}"), errno),
        }
    }

    fn rule_error(&self, rule: &Rule, refusal: &Refusal) -> Error {
        // A rule that is not among the installed ones comes behind them; readers count from 1.
        let before = self.rules.iter().position(|other| other == rule).unwrap_or(self.rules.len());
        let which = format!("rule {} ({})", before + 1, rule.name());
        match self.lacking(rule) {
            Some(module) if refusal.errno == Errno::ENOENT => self.missing(module, &which),
            _ => self.error(&format!(", {which}"), refusal.errno),
        }
    }

    /// The first of the rule's expressions that the kernel does not know: each
    /// is tried alone, in a transaction that is never committed.
    fn lacking(&self, rule: &Rule) -> Option<&'static str> {
        let expressions = expression::of_rule(rule);
        expressions.into_iter().find_map(|expression| {
            let module = expression::module(&expression)?;
            let requests = vec![
                request::new_table(REHEARSAL),
                request::new_chain(REHEARSAL, rule.hook()),
                request::new_rule_of(REHEARSAL, rule.hook(), expression),
            ];
            let refusal = self.nfnetlink.rehearse(requests).err()?;
            (refusal.message == Some(2) && refusal.errno == Errno::ENOENT).then_some(module)
        })
    }
}

/// The chains that `rules` need. Kernels before 4.18 translate the packets of a
/// flow only in hooks that have a nat chain, so a reply needs the opposite one:
/// prerouting and postrouting face each other, and so do output and input.
fn chains_for(rules: &[Rule]) -> BTreeSet<Hook> {
    let mut chains: BTreeSet<_> = rules.iter().map(Rule::hook).collect();
    if chains.iter().any(|hook| hook.is_nat()) {
        chains.extend([Hook::NatPrerouting, Hook::NatPostrouting]);
    }
    if chains.contains(&Hook::NatOutput) || chains.contains(&Hook::NatInput) {
        chains.extend([Hook::NatOutput, Hook::NatInput]);
    }
    chains
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
        let filter = chains_for(&[Rule::drop("invalid")]);
        assert_eq!(filter, BTreeSet::from([Hook::Forward]));

        let masquerade = chains_for(&[Rule::masquerade("out", "wan")]);
        assert_eq!(masquerade, BTreeSet::from([Hook::NatPrerouting, Hook::NatPostrouting]));

        let service = Rule::destination_nat("service", ([10, 96, 0, 1], 80), ([10, 0, 2, 2], 8080));
        assert_eq!(chains_for(&[service.on(Hook::NatOutput)]).len(), 4);
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
