"""Checksums of identifiers: what separates a card or vehicle number from any other digits."""

from __future__ import annotations

import re

_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20,
    "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18,
    "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "JO": 30,
    "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24,
    "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "TN": 24, "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip


def digits_of(text: str) -> str:
    """Return the ASCII digits of a text."""
    return "".join(c for c in text if "0" <= c <= "9")


def luhn(digits: str) -> bool:
    """Return whether the digits meet the mod-10 rule of ISO/IEC 7812-1 (cards, IMEI, NPI)."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card(digits: str) -> bool:
    """Return whether the digits are a payment card's: length, issuer's first digit and Luhn."""
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456" or len(set(digits)) < 2:
        return False
    return luhn(digits)


def iban(text: str) -> bool:
    """Return whether the text is an IBAN: the country's length and mod 97 = 1 (ISO 13616)."""
    plain = re.sub(r"[\s-]", "", text).upper()
    if len(plain) != _IBAN_LENGTHS.get(plain[:2], -1) or not plain.isascii() or not plain.isalnum():
        return False
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def vin(text: str) -> bool:
    """Return whether 17 characters are a vehicle's with the right check digit (49 CFR 565.15)."""
    plain = text.upper()
    if len(plain) != 17 or plain.isdigit() or plain.isalpha():
        return False
    try:
        total = sum(
            int(_VIN_VALUES.get(char, char)) * weight
            for char, weight in zip(plain, _VIN_WEIGHTS, strict=True)
        )
    except ValueError:  # I, O, Q and signs are not used
        return False
    return plain[8] == "0123456789X"[total % 11]


def dea(text: str) -> bool:
    """Return whether two letters and seven digits are a DEA registration (21 CFR 1301)."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z9]\d{7}", text):
        return False
    n = [int(char) for char in text[2:]]
    return (n[0] + n[2] + n[4] + 2 * (n[1] + n[3] + n[5])) % 10 == n[6]


def npi(digits: str) -> bool:
    """Return whether ten digits are a US provider identifier: Luhn with the prefix 80840."""
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def ssn(area: str, group: str, serial: str) -> bool:
    """Return whether the parts may be a social security number (SSA: no 000, 666, 9xx; ...)."""
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def cpf(digits: str) -> bool:
    """Return whether eleven digits are a Brazilian CPF (two check digits, modulus 11)."""
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    for size in (9, 10):
        total = sum(int(digits[i]) * (size + 1 - i) for i in range(size))
        if total * 10 % 11 % 10 != int(digits[size]):
            return False
    return True
