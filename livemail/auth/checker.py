"""The checker of our own accounts: a login and a password against the store's argon2id hash.

An unknown login, a disabled account and one without password are checked against a decoy hash of the same cost, so
that neither answer nor time says whether an account exists.
"""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from livemail.auth.cache import VerifiedCache
from livemail.auth.passwords import Passwords
from livemail.interfaces.directory import IDirectory
from livemail.interfaces.storage import AccountRecord, IMailStore
from livemail.mail.errors import MailError


@implementer(ICredentialsChecker)
class DirectoryChecker:
    """Checks `IUsernamePassword`; the avatar id is the account's canonical login in UTF-8."""

    credentialInterfaces = (IUsernamePassword,)
    log = Logger()

    def __init__(
        self, directory: IDirectory, store: IMailStore, passwords: Passwords, cache: VerifiedCache | None = None
    ) -> None:
        self._directory = directory
        self._store = store
        self._passwords = passwords
        self._cache = cache

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fire with the canonical login.  Fails with UnauthorizedLogin, AuthenticationUnavailable, or a MailError."""
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, username: bytes, octets: bytes) -> bytes | tuple[()]:
        password = octets.decode("utf-8", "surrogateescape")
        record = await self._directory.account_for_login(username.decode("utf-8", "replace"))
        is_cached = record is not None and self._cache is not None and (record, password) in self._cache
        if not is_cached:
            has_hash = record is not None and record.password != ""
            hashed = record.password if record is not None and has_hash else self._passwords.decoy
            is_right = await self._passwords.verify(hashed, password)
            if record is None or not has_hash or not is_right:
                raise UnauthorizedLogin
            record = await self._rehashed(record, password)
            if self._cache is not None:
                self._cache.add(record, password)
        assert record is not None
        return record.name.encode()

    async def _rehashed(self, record: AccountRecord, password: str) -> AccountRecord:
        """Bring a hash made at another cost to the present one; a failure to do so only costs the next login time."""
        if not self._passwords.needs_rehash(record.password):
            return record
        try:
            hashed = await self._passwords.hash(password)
            # Hashing took time: an administrator's new password must not be replaced by the old one.
            present = await self._store.account_named(record.name)
            if present is not None and present.password == record.password:
                return await self._store.set_password(record.name, hashed)
        except MailError as error:
            self.log.warn("{account}: password was not hashed anew: {error}", account=record.name, error=error.text)
        return record
