//! The controls of a page that the current user's role permits, by the table of [`cdm_core::manager::Action::role`],
//! and a note that names the controls that the page leaves out.

use cdm_core::domain::Role;

use super::session::CurrentUser;

/// Decides which controls a page shows, and records the controls that the role does not permit.
#[derive(Clone, Debug)]
pub(crate) struct Controls {
    role: Role,
    /// The controls that are left out, with the role that each requires.
    hidden: Vec<(Role, &'static str)>,
}

impl Controls {
    pub(crate) const fn for_user(current_user: &CurrentUser) -> Self {
        Self { role: current_user.role, hidden: Vec::new() }
    }

    /// Returns whether the user's role permits the control, and records the control otherwise.
    pub(crate) fn permits(&mut self, label: &'static str, required: Role) -> bool {
        let permitted = self.role >= required;
        if !permitted && !self.hidden.contains(&(required, label)) {
            self.hidden.push((required, label));
        }
        permitted
    }

    /// Returns a sentence that names the hidden controls with the roles that they require; `None` if no control is
    /// hidden.
    pub(crate) fn role_note(&self) -> Option<String> {
        let notes = Role::ALL.into_iter().filter_map(|role| {
            let labels: Vec<_> = self
                .hidden
                .iter()
                .filter(|(required, _)| *required == role)
                .map(|(_, label)| *label)
                .collect();
            let verb = if labels.len() == 1 { "requires" } else { "require" };
            (!labels.is_empty()).then(|| format!("{} {verb} the role {role}", labels.join(", ")))
        });
        let notes: Vec<_> = notes.collect();
        (!notes.is_empty()).then(|| format!("{}; your role is {}.", notes.join("; "), self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_names_hidden_controls_with_their_role() {
        let mut controls = Controls { role: Role::Operator, hidden: Vec::new() };
        assert!(controls.permits("Promote", Role::Operator));
        assert_eq!(controls.role_note(), None);
        assert!(!controls.permits("Terminate", Role::Admin) && !controls.permits("Deploy", Role::Admin));
        assert_eq!(
            controls.role_note().as_deref(),
            Some("Terminate, Deploy require the role admin; your role is operator.")
        );
    }
}
