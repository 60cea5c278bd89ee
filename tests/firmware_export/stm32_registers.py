"""Clock trees of the STM32 families as their reference manuals describe them, for boards that run in unicorn.

Each model says which ready flags follow which enable bits, and turns what the firmware wrote into frequencies; the
limits of the manuals are asserted on the way. A register of a peripheral whose clock is off does not take what is
written, as on the part. Flags named in `missing` never come.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from host_tools.cortex_m import Machine

MHZ = 1_000_000
AHB_DIVIDERS = (1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 64, 128, 256, 512)
APB_DIVIDERS = (1, 1, 1, 1, 2, 4, 8, 16)


def field(value: int, low: int, bits: int) -> int:
    """`bits` bits of a register from bit `low` on."""
    return value >> low & ((1 << bits) - 1)


def follows(value: int, enable: int, ready: int) -> int:
    """A register whose ready bit shows its enable bit."""
    return (value & ~(1 << ready)) | field(value, enable, 1) << ready


class ClockTree(ABC):
    """Registers of one family. Addresses, reset values and clock enables are class attributes.

    reset: address -> reset value of every modelled register (others are 0).
    blocks: base address and bytes of what is modelled.
    enables: base address of a peripheral -> (address, bit) of its clock enable.
    flags: names that `missing` may hold. internal_hz: the oscillator that always runs. CR: address of RCC_CR.
    """

    reset: ClassVar[dict[int, int]]
    blocks: ClassVar[tuple[tuple[int, int], ...]]
    enables: ClassVar[dict[int, tuple[int, int]]]
    flags: ClassVar[tuple[str, ...]]
    internal_hz: ClassVar[int]
    CR: ClassVar[int]

    def __init__(self, machine: Machine, crystal_hz: int, uart: int, missing: Collection[str] = ()) -> None:
        assert set(missing) <= set(self.flags)
        self.crystal_hz, self.uart, self.missing = crystal_hz, uart, set(missing)
        self.values = dict(self.reset)
        for base, size in (*self.blocks, *((base, 0x30) for base in self.enables)):
            for address in range(base, base + size, 4):
                self._connect(machine, address)

    def _connect(self, machine: Machine, address: int) -> None:
        own = machine.writers.get(address)
        if address not in machine.readers:
            machine.readers[address] = lambda: self.read(address, self.values.get(address, 0))

        def write(value: int) -> None:
            if own is not None:
                own(value)
            if self.is_clocked(address):
                before = self.is_fast()
                self.check_bypass(address, value)
                self.values[address] = value
                if self.is_fast() and not before:
                    self.check_flash(self.core_hz())

        machine.writers[address] = write

    def is_clocked(self, address: int) -> bool:
        """Whether the peripheral at an address has its clock."""
        for base, (enable, bit) in self.enables.items():
            if base <= address < base + 0x30:
                return bool(field(self.values.get(enable, 0), bit, 1))
        return True

    def check_bypass(self, address: int, value: int) -> None:
        """HSEBYP (bit 18 of RCC_CR in F1, F4 and H7) may be written only while HSEON (bit 16) is 0."""
        if address == self.CR and field(value ^ self.values[address], 18, 1):
            assert not field(value | self.values[address], 16, 1)

    def ready(self, name: str, value: int, enable: int, bit: int) -> int:
        """A ready flag that follows its enable bit, or never comes."""
        return value & ~(1 << bit) if name in self.missing else follows(value, enable, bit)

    @abstractmethod
    def read(self, address: int, value: int) -> int:
        """What the firmware reads where `value` was written last."""

    @abstractmethod
    def is_fast(self) -> bool:
        """Whether the system clock is switched to the PLL."""

    @abstractmethod
    def core_hz(self) -> int:
        """The core's clock, from the registers."""

    @abstractmethod
    def uart_hz(self) -> int:
        """The clock of the baud rate generator, from the registers."""

    @abstractmethod
    def check_flash(self, core_hz: int) -> None:
        """Asserts that flash is slow enough for the core's clock; called when the switch is written."""

    @abstractmethod
    def check_pins(self) -> None:
        """Asserts that the UART's pins are its pins."""


def check_alternate(values: dict[int, int], port: int, pin: int, function: int) -> None:
    """MODER alternate, the right AFR, pull-up (all families but F1)."""
    assert field(values[port], 2 * pin, 2) == 2
    assert field(values[port + 0x20 + 4 * (pin // 8)], 4 * (pin % 8), 4) == function
    assert field(values[port + 0x0C], 2 * pin, 2) == 1


class F4(ClockTree):
    """RM0090 and RM0390, chapters RCC and FLASH; 2.7 V to 3.6 V."""

    CR, PLLCFGR, CFGR, ACR, GPIOA = 0x40023800, 0x40023804, 0x40023808, 0x40023C00, 0x40020000
    reset: ClassVar = {CR: 0x83, PLLCFGR: 0x24003010, GPIOA: 0xA8000000}
    blocks: ClassVar = ((0x40023800, 0x90), (0x40023C00, 0x10))
    enables: ClassVar = {0x40020000: (0x40023830, 0), 0x40004400: (0x40023840, 17), 0x40000000: (0x40023840, 0)}
    flags: ClassVar = ("HSE", "PLL", "flash", "switch")
    internal_hz: ClassVar = 16 * MHZ

    def read(self, address: int, value: int) -> int:
        if address == self.CR:
            return self.ready("PLL", self.ready("HSE", value, 16, 17), 24, 25)
        if address == self.CFGR:
            return value & ~0xC | (0 if "switch" in self.missing else field(value, 0, 2) << 2)
        return 0 if address == self.ACR and "flash" in self.missing else value

    def is_fast(self) -> bool:
        return field(self.values.get(self.CFGR, 0), 0, 2) == 2

    def core_hz(self) -> int:
        if not self.is_fast():
            return self.internal_hz
        pll = self.values[self.PLLCFGR]
        assert field(self.values[self.CR], 24, 1) and field(pll, 22, 1), "the PLL runs, from HSE"
        source = self.crystal_hz / field(pll, 0, 6)
        assert 1 * MHZ <= source <= 2 * MHZ
        vco = source * field(pll, 6, 9)
        assert 100 * MHZ <= vco <= 432 * MHZ and vco / field(pll, 24, 4) <= 48 * MHZ
        assert field(pll, 28, 3) >= 2, "PLLR of the F446, reserved in the F405"
        system = vco / (2 * field(pll, 16, 2) + 2)
        assert system <= 168 * MHZ and system / APB_DIVIDERS[field(self.values[self.CFGR], 13, 3)] <= 84 * MHZ
        return int(system / AHB_DIVIDERS[field(self.values[self.CFGR], 4, 4)])

    def uart_hz(self) -> int:
        clock = self.core_hz() // APB_DIVIDERS[field(self.values.get(self.CFGR, 0), 10, 3)]
        assert clock <= 42 * MHZ
        return clock

    def check_flash(self, core_hz: int) -> None:
        assert field(self.values[self.ACR], 0, 4) >= -(-core_hz // (30 * MHZ)) - 1

    def check_pins(self) -> None:
        for pin in (2, 3):
            check_alternate(self.values, self.GPIOA, pin, 7)
        assert field(self.values[self.GPIOA], 26, 6) == 0x2A, "PA13 to PA15 still belong to the debugger"


class F1(ClockTree):
    """RM0008, chapters RCC, GPIO; flash: PM0075."""

    CR, CFGR, ACR, CRL, ODR = 0x40021000, 0x40021004, 0x40022000, 0x40010800, 0x4001080C
    reset: ClassVar = {CR: 0x83, ACR: 0x30, CRL: 0x44444444}
    blocks: ClassVar = ((0x40021000, 0x28), (0x40022000, 0x4))
    enables: ClassVar = {0x40010800: (0x40021018, 2), 0x40004400: (0x4002101C, 17), 0x40000000: (0x4002101C, 0)}
    flags: ClassVar = ("HSE", "PLL", "switch")
    internal_hz: ClassVar = 8 * MHZ

    def read(self, address: int, value: int) -> int:
        if address == self.CR:
            return self.ready("PLL", self.ready("HSE", value, 16, 17), 24, 25)
        if address == self.CFGR:
            return value & ~0xC | (0 if "switch" in self.missing else field(value, 0, 2) << 2)
        return value

    def is_fast(self) -> bool:
        return field(self.values.get(self.CFGR, 0), 0, 2) == 2

    def core_hz(self) -> int:
        if not self.is_fast():
            return self.internal_hz
        config = self.values[self.CFGR]
        assert field(config, 16, 1) == 1 and field(config, 17, 1) == 0 and field(config, 18, 4) < 15
        system = self.crystal_hz * (field(config, 18, 4) + 2)
        assert 16 * MHZ <= system <= 72 * MHZ
        return system // AHB_DIVIDERS[field(config, 4, 4)]

    def uart_hz(self) -> int:
        clock = self.core_hz() // APB_DIVIDERS[field(self.values.get(self.CFGR, 0), 8, 3)]
        assert clock <= 36 * MHZ
        return clock

    def check_flash(self, core_hz: int) -> None:
        assert field(self.values[self.ACR], 0, 3) == (core_hz > 24 * MHZ) + (core_hz > 48 * MHZ)
        assert field(self.values[self.ACR], 4, 1), "prefetch on"

    def check_pins(self) -> None:
        assert field(self.values[self.CRL], 8, 4) == 0xB, "PA2: alternate function, push-pull, 50 MHz"
        assert field(self.values[self.CRL], 12, 4) == 0x8 and field(self.values[self.ODR], 3, 1), "PA3: input, pulled up"
        assert self.values[self.CRL] & ~0xFF00 == 0x44440044, "the other pins stay as they were"


class G0(ClockTree):
    """RM0444, chapters RCC, FLASH, GPIO; voltage range 1."""

    CR, CFGR, PLLCFGR, ACR, GPIOA = 0x40021000, 0x40021008, 0x4002100C, 0x40022000, 0x50000000
    reset: ClassVar = {CR: 0x500, PLLCFGR: 0x1000, ACR: 0x40600, GPIOA: 0xEBFFFFFF}
    blocks: ClassVar = ((0x40021000, 0x64), (0x40022000, 0x4))
    enables: ClassVar = {0x50000000: (0x40021034, 0), 0x40004400: (0x4002103C, 17), 0x40000000: (0x4002103C, 0)}
    flags: ClassVar = ("PLL", "flash", "switch")
    internal_hz: ClassVar = 16 * MHZ

    def read(self, address: int, value: int) -> int:
        if address == self.CR:
            return self.ready("PLL", value, 24, 25)
        if address == self.CFGR:
            return value & ~0x38 | (0 if "switch" in self.missing else field(value, 0, 3) << 3)
        return value & ~7 if address == self.ACR and "flash" in self.missing else value

    def is_fast(self) -> bool:
        return field(self.values.get(self.CFGR, 0), 0, 3) == 2

    def core_hz(self) -> int:
        if not self.is_fast():
            return self.internal_hz
        pll = self.values[self.PLLCFGR]
        assert field(pll, 0, 2) == 2 and field(pll, 28, 1) == 1, "from HSI16, output R enabled"
        source = self.internal_hz / (field(pll, 4, 3) + 1)
        vco = source * field(pll, 8, 7)
        assert 2.66 * MHZ <= source <= 16 * MHZ and 64 * MHZ <= vco <= 344 * MHZ and field(pll, 8, 7) >= 8
        system = vco / (field(pll, 29, 3) + 1)
        assert field(pll, 29, 3) >= 1 and system <= 64 * MHZ
        return int(system / AHB_DIVIDERS[field(self.values[self.CFGR], 8, 4)])

    def uart_hz(self) -> int:
        return self.core_hz() // APB_DIVIDERS[field(self.values.get(self.CFGR, 0), 12, 3)]

    def check_flash(self, core_hz: int) -> None:
        assert field(self.values[self.ACR], 0, 3) == (core_hz > 24 * MHZ) + (core_hz > 48 * MHZ)
        assert field(self.values[self.ACR], 18, 1), "the debugger keeps its access to flash"

    def check_pins(self) -> None:
        for pin in (2, 3):
            check_alternate(self.values, self.GPIOA, pin, 1)


class H7(ClockTree):
    """RM0433, chapters PWR, RCC, FLASH (table 17), GPIO."""

    CR, CFGR, D1CFGR, D2CFGR, D3CFGR = 0x58024400, 0x58024410, 0x58024418, 0x5802441C, 0x58024420
    PLLCKSELR, PLLCFGR, PLL1DIVR = 0x58024428, 0x5802442C, 0x58024430
    CSR1, CR3, D3CR, ACR, GPIOD = 0x58024804, 0x5802480C, 0x58024818, 0x52002000, 0x58020C00
    reset: ClassVar = {
        CR: 0x25,
        PLLCKSELR: 0x02020200,
        PLLCFGR: 0x01FF0000,
        PLL1DIVR: 0x01010280,
        CR3: 6,
        D3CR: 0x4000,
        ACR: 0x37,
    }
    blocks: ClassVar = ((0x58024400, 0x100), (0x58024800, 0x1C), (0x52002000, 0x4))
    enables: ClassVar = {0x58020C00: (0x580244E0, 3), 0x40004800: (0x580244E8, 18), 0x40000000: (0x580244E8, 0)}
    flags: ClassVar = ("supply", "voltage", "HSE", "PLL", "flash", "switch")
    internal_hz: ClassVar = 64 * MHZ

    def read(self, address: int, value: int) -> int:
        if address == self.CR:
            return self.ready("PLL", self.ready("HSE", value, 16, 17), 24, 25)
        if address == self.CFGR:
            return value & ~0x38 | (0 if "switch" in self.missing else field(value, 0, 3) << 3)
        if address == self.CSR1:
            return 0 if "supply" in self.missing or field(self.values[self.CR3], 0, 3) != 2 else 1 << 13
        if address == self.D3CR:
            return value | (0 if "voltage" in self.missing else 1 << 13)
        return 0 if address == self.ACR and "flash" in self.missing else value

    def is_fast(self) -> bool:
        return field(self.values.get(self.CFGR, 0), 0, 3) == 3

    def core_hz(self) -> int:
        if not self.is_fast():
            return self.internal_hz
        assert field(self.values[self.D3CR], 14, 2) == 3, "voltage scale 1"
        select, config, dividers = (self.values[a] for a in (self.PLLCKSELR, self.PLLCFGR, self.PLL1DIVR))
        assert field(select, 0, 2) == 2 and field(config, 16, 1) == 1 and field(config, 1, 1) == 0
        source = self.crystal_hz / field(select, 4, 6)
        low, high = ((1, 2), (2, 4), (4, 8), (8, 16))[field(config, 2, 2)]
        vco = source * (field(dividers, 0, 9) + 1)
        assert low * MHZ <= source <= high * MHZ and 192 * MHZ <= vco <= 836 * MHZ
        system = vco / (field(dividers, 9, 7) + 1)
        assert system <= 400 * MHZ and field(self.values[self.D1CFGR], 8, 4) == 0
        assert self._bus_hz(int(system)) <= 200 * MHZ
        return int(system)

    def _bus_hz(self, system: int) -> int:
        return system // AHB_DIVIDERS[field(self.values.get(self.D1CFGR, 0), 0, 4)]

    def uart_hz(self) -> int:
        bus = self._bus_hz(self.core_hz())
        for address, low in ((self.D1CFGR, 4), (self.D2CFGR, 4), (self.D2CFGR, 8), (self.D3CFGR, 4)):
            assert bus // APB_DIVIDERS[field(self.values.get(address, 0), low, 3)] <= 100 * MHZ
        return bus // APB_DIVIDERS[field(self.values.get(self.D2CFGR, 0), 4, 3)]

    def check_flash(self, core_hz: int) -> None:
        bus, latency = self._bus_hz(core_hz), self.values[self.ACR]
        assert field(latency, 0, 4) >= (bus > 70 * MHZ) + (bus > 140 * MHZ) + (bus > 210 * MHZ)
        assert field(latency, 4, 2) >= (bus > 70 * MHZ) + (bus > 185 * MHZ)

    def check_pins(self) -> None:
        for pin in (8, 9):
            check_alternate(self.values, self.GPIOD, pin, 7)


FAMILIES: dict[str, type[ClockTree]] = {
    "netduinoplus2": F4,
    "nucleo_f446re": F4,
    "nucleo_f103rb": F1,
    "nucleo_g071rb": G0,
    "nucleo_h743zi": H7,
}
