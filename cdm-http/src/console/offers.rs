//! Which controls of a page its visitor may use, by the table of the application layer, and why others are not there.

use cdm_core::domain::Role;

use super::guard::Visitor;

/// The controls of a page that make sense as things are.
#[derive(Clone, Debug)]
pub(crate) struct Offers {
    has: Role,
    withheld: Vec<(Role, &'static str)>,
}

impl Offers {
    pub(crate) const fn to(visitor: &Visitor) -> Self {
        Self { has: visitor.role, withheld: Vec::new() }
    }

    /// Whether the visitor sees a control, which takes that role.
    pub(crate) fn offer(&mut self, label: &'static str, needed: Role) -> bool {
        let offered = self.has >= needed;
        if !offered && !self.withheld.contains(&(needed, label)) {
            self.withheld.push((needed, label));
        }
        offered
    }

    /// Why controls are not there; `None` where all are.
    pub(crate) fn why(&self) -> Option<String> {
        let told = Role::ALL.into_iter().filter_map(|role| {
            let labels: Vec<_> =
                self.withheld.iter().filter(|(needed, _)| *needed == role).map(|(_, label)| *label).collect();
            let takes = if labels.len() == 1 { "takes" } else { "take" };
            (!labels.is_empty()).then(|| format!("{} {takes} the role {role}", labels.join(", ")))
        });
        let told: Vec<_> = told.collect();
        (!told.is_empty()).then(|| format!("{}; yours is {}.", told.join("; "), self.has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_another_role_is_named_with_it() {
        let mut offers = Offers { has: Role::Operator, withheld: Vec::new() };
        assert!(offers.offer("Promote", Role::Operator));
        assert_eq!(offers.why(), None);
        assert!(!offers.offer("Terminate", Role::Admin) && !offers.offer("Deploy", Role::Admin));
        assert_eq!(
            offers.why().as_deref(),
            Some("Terminate, Deploy take the role admin; yours is operator.")
        );
    }
}
