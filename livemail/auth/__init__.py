"""The one door: twisted.cred portal, realm and checkers, SASL mechanisms, password hashes."""
