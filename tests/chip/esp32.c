// An ESP32 for tests: both Xtensa LX6 cores, instruction by instruction, with what
// the bootloader and MicroPython touch.
//
//   cc -O2 -o esp32 esp32.c -lm;  esp32 FLASH [CUT]
//
// FLASH is a file of 4 MiB, the content of the flash chip; it changes as the chip changes it. Standard input and output
// are UART0. It starts at the bootloader in flash, as the ROM does. Exit code: 0 after the end of the input, 42 after a
// reset (start it again), 43 when the power went (in the middle of flash operation number CUT), 3 when it met an
// instruction, an address or a ROM function that is not modelled.
//
// The ROM is not here. Its functions are played in C, at the addresses that ESP-IDF's linker scripts publish. Wi-Fi,
// Bluetooth, watchdogs and most peripherals are left out (their registers are plain memory), and so is all timing but
// one cycle per instruction; one core runs SLICE instructions, then the other. Sources: Xtensa ISA reference manual,
// ESP32 technical reference manual.
#include <ctype.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
typedef uint32_t u32;
typedef int32_t i32;
typedef uint64_t u64;
typedef uint8_t u8;
typedef uint16_t u16;
enum { BROKEN = 3, RESET = 42, CUT = 43 }; // exit codes
#define SLICE 100                          // instructions that one core runs before the other
#define CHARACTER 14000                    // cycles between two characters of the console
enum { EXCM = 1 << 4, UM = 1 << 5, WOE = 1 << 18 };
typedef struct {
  u32 ar[64];
  u32 wb, ws, pc, ps, sar, lbeg, lend, lcount, br, scompare, acclo, acchi, m[4];
  u32 epc[8], eps[8], exs[8], depc, vecbase, exccause, excvaddr, cpenable, inten, intr, ccomp[3], misc[4], prid, tp,
      fcr, fsr, debugcause, memctl, atomctl, icount, icountlevel;
  float f[16];
  u32 ibreake;
  int waiting, running, id;
  u32 ccbase, done;
  u64 insns;
  u32 edge;
} Cpu;
static Cpu cpu[2];
static Cpu *cur;
static u8 *rd[1 << 20], *wr[1 << 20];
static u8 dram[0x52000], iram[0x30000], rtcf[0x2000], rtcs[0x2000], romd[0x10000]; // dram 0x3FFAE000..0x40000000
#define FLASH_SIZE (4u << 20)
static u8 *flash;
static u32 mmu[2][384];
static u32 io[0x80000 / 4];
static u64 cycles;
static u32 mhz = 160;

static void die(const char *fmt, u32 a, u32 b) {
  fflush(stdout);
  fprintf(stderr, "\n[chip] ");
  fprintf(stderr, fmt, a, b);
  fprintf(stderr, " core %d pc %08x ps %08x cycles %llu wb %u ws %04x\n", cur->id, cur->pc, cur->ps,
          (unsigned long long)cycles, cur->wb, cur->ws);
  for (int i = 0; i < 16; i++)
    fprintf(stderr, "a%d=%08x%c", i, cur->ar[(cur->wb * 4 + i) & 63], i % 8 == 7 ? '\n' : ' ');
  exit(BROKEN);
}
// ---------------------------------------------------------------- memory
static void map(u32 a, u32 n, u8 *p, int w) {
  for (u32 i = 0; i < n; i += 4096) {
    rd[(a + i) >> 12] = p + i;
    if (w) wr[(a + i) >> 12] = p + i;
  }
}
static void mapflash(int e) {
  u32 va;
  if (e < 64)
    va = 0x3f400000 + e * 0x10000;
  else if (e < 128)
    va = 0x40000000 + (e - 64) * 0x10000;
  else if (e < 192)
    va = 0x40400000 + (e - 128) * 0x10000;
  else
    va = 0x40800000 + (e - 192) * 0x10000;
  if (va >= 0x40000000 && va < 0x400d0000) return;
  u32 v = mmu[0][e];
  for (u32 i = 0; i < 0x10000; i += 4096)
    rd[(va + i) >> 12] = (v & 0x100) ? 0 : flash + ((v & 0xff) * 0x10000u) % FLASH_SIZE + i;
}
static u32 io_read(u32 a);
static void io_write(u32 a, u32 v);
static u32 dalias(u32 a) { return 0x40000000u - 4 - ((a & ~3u) - 0x400a0000u) + (a & 3); } // D/IRAM, words reversed
static u32 slow_r(u32 a, int n) {
  if (a >= 0x400a0000 && a < 0x400c0000) {
    u32 d = dalias(a);
    u32 v = 0;
    memcpy(&v, rd[d >> 12] + (d & 4095), n);
    return v;
  }
  if ((a >= 0x3ff00000 && a < 0x3ff80000) || (a >= 0x60000000 && a < 0x60040000)) {
    u32 v = io_read(a & ~3u);
    v >>= 8 * (a & 3);
    return n == 4 ? v : n == 2 ? v & 0xffff : v & 0xff;
  }
  if (a >= 0x40000000 && a < 0x40070000) return 0;
  if (a >= 0x3f400000 && a < 0x40c00000) return 0;
  die("read of %08x size %d", a, n);
  return 0;
}
static void slow_w(u32 a, u32 v, int n) {
  if (a >= 0x400a0000 && a < 0x400c0000) {
    u32 d = dalias(a);
    memcpy(wr[d >> 12] + (d & 4095), &v, n);
    return;
  }
  if ((a >= 0x3ff00000 && a < 0x3ff80000) || (a >= 0x60000000 && a < 0x60040000)) {
    if (n < 4) {
      u32 o = io_read(a & ~3u);
      u32 sh = 8 * (a & 3), m = (n == 2 ? 0xffffu : 0xffu) << sh;
      v = (o & ~m) | ((v << sh) & m);
    }
    io_write(a & ~3u, v);
    return;
  }
  if (a >= 0x3f400000 && a < 0x40c00000) { return; }
  die("write of %08x value %08x", a, v);
}
static inline u32 r32(u32 a) {
  u8 *p = rd[a >> 12];
  u32 v;
  if (p && (a & 4095) <= 4092) {
    memcpy(&v, p + (a & 4095), 4);
    return v;
  }
  if (p) {
    v = 0;
    for (int i = 0; i < 4; i++) {
      u8 *q = rd[(a + i) >> 12];
      v |= (u32)(q ? q[(a + i) & 4095] : 0) << 8 * i;
    }
    return v;
  }
  return slow_r(a, 4);
}
static inline u32 r16(u32 a) {
  u8 *p = rd[a >> 12];
  u16 v;
  if (p) {
    memcpy(&v, p + (a & 4095), 2);
    return v;
  }
  return slow_r(a, 2);
}
static inline u32 r8(u32 a) {
  u8 *p = rd[a >> 12];
  if (p) return p[a & 4095];
  return slow_r(a, 1);
}
static inline void w32(u32 a, u32 v) {
  u8 *p = wr[a >> 12];
  if (p && (a & 4095) <= 4092) {
    memcpy(p + (a & 4095), &v, 4);
    return;
  }
  if (p) {
    for (int i = 0; i < 4; i++) wr[(a + i) >> 12][(a + i) & 4095] = v >> 8 * i;
    return;
  }
  slow_w(a, v, 4);
}
static inline void w16(u32 a, u32 v) {
  u8 *p = wr[a >> 12];
  if (p) {
    u16 x = v;
    memcpy(p + (a & 4095), &x, 2);
    return;
  }
  slow_w(a, v & 0xffff, 2);
}
static inline void w8(u32 a, u32 v) {
  u8 *p = wr[a >> 12];
  if (p) {
    p[a & 4095] = v;
    return;
  }
  slow_w(a, v & 0xff, 1);
}
// ---------------------------------------------------------------- console
static u8 rxq[65536];
static u32 rxh, rxt;
static int eof;
static u8 txb[65536];
static u32 txn;
static void txflush(void) {
  if (txn) {
    u32 o = 0;
    while (o < txn) {
      ssize_t k = write(1, txb + o, txn - o);
      if (k <= 0) exit(0);
      o += k;
    }
    txn = 0;
  }
}
static void tx(u8 c) {
  txb[txn++] = c;
  if (txn == sizeof txb) txflush();
}
static void pollin(int ms) {
  if (eof) {
    if (ms) usleep(ms * 1000);
    return;
  }
  struct pollfd p = {0, POLLIN, 0};
  if (poll(&p, 1, ms) > 0) {
    u8 b[4096];
    u32 room = (rxh - rxt - 1) & 65535;
    if (room > 4096) room = 4096;
    if (!room) return;
    ssize_t n = read(0, b, room);
    if (n <= 0) {
      eof = 1;
      return;
    }
    for (ssize_t i = 0; i < n; i++) {
      rxq[rxt++] = b[i];
      rxt &= 65535;
    }
  }
}
static u32 avail;
static u64 rxnext;
static u32 rxcount(void) { return avail; }
// ---------------------------------------------------------------- time, timers, interrupts
static u64 apb(void) { return cycles * 80 / mhz; }
static u64 lac_base, lac_load, lac_alarm;
static int lac_armed;
static u64 frc_base;
static u32 frc_load, frc_alarm;
static int frc_armed;
#define IO(a) io[((a) - 0x3ff00000) / 4]
static u64 lac_now(void) {
  u32 c = IO(0x3ff5f070);
  u32 d = (c >> 13) & 0xffff;
  if (!d) d = 65536;
  if (!(c >> 31)) return lac_load;
  return lac_load + (apb() - lac_base) / d;
}
static u32 frc_div(void) {
  u32 c = IO(0x3ff47028);
  u32 p = (c >> 1) & 7;
  return p == 2 ? 16 : p == 4 ? 256 : 1;
}
static u32 frc_now(void) { return frc_load + (u32)((apb() - frc_base) / frc_div()); }
static u32 uart_raw(void) {
  u32 r = IO(0x3ff40004) | 2;
  if (rxcount()) r |= 1 | (1 << 8);
  return r;
}
static u32 srcs[3]; // pending peripheral sources 0..71
static void setsrc(int n, int on) {
  if (on)
    srcs[n >> 5] |= 1u << (n & 31);
  else
    srcs[n >> 5] &= ~(1u << (n & 31));
}
static int kick;
static void update(void) {
  kick = 1;
  if (avail < 100 && ((rxt - rxh) & 65535) > avail && cycles >= rxnext) {
    avail++;
    rxnext = cycles + 14000;
  }
  if (lac_armed && lac_now() >= lac_alarm) {
    IO(0x3ff5f09c) |= 8;
    lac_armed = 0;
    IO(0x3ff5f070) &= ~(1u << 10);
  }
  if (frc_armed && (i32)(frc_now() - frc_alarm) >= 0) {
    IO(0x3ff4702c) |= 1;
    frc_armed = 0;
  }
  setsrc(34, (uart_raw() & IO(0x3ff4000c) & ~2u) || ((IO(0x3ff4000c) & 2)));
  setsrc(17, (IO(0x3ff5f09c) & IO(0x3ff5f098) & 8) != 0); // TG0 LACT level
  setsrc(61, (IO(0x3ff5f09c) & IO(0x3ff5f098) & 8) != 0); // TG0 LACT edge
  for (int i = 0; i < 4; i++) setsrc(24 + i, IO(0x3ff000dc + 4 * i) & 1);
  setsrc(55, IO(0x3ff4702c) & 1); // FRC2
  for (int c = 0; c < 2; c++) {
    u32 base = c ? 0x3ff00218 : 0x3ff00104, lines = 0;
    for (int w = 0; w < 3; w++) {
      u32 s = srcs[w];
      while (s) {
        int n = w * 32 + __builtin_ctz(s);
        s &= s - 1;
        if (n < 69) {
          u32 l = IO(base + 4 * n) & 31;
          lines |= 1u << l;
        }
      }
    }
    u32 level = ~((1u << 6) | (1 << 7) | (1 << 11) | (1 << 15) | (1 << 16) | (1u << 29) | (1u << 10) | (1u << 22) |
                  (1u << 28) | (1u << 30));
    u32 edgem = (1u << 10) | (1u << 22) | (1u << 28) | (1u << 30);
    cpu[c].intr = (cpu[c].intr & ~level) | (lines & level);
    u32 rise = lines & ~cpu[c].edge & edgem;
    cpu[c].intr |= rise;
    cpu[c].edge = lines;
  }
}
static const u8 intlevel[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 1, 1, 7, 3,
                                5, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 3, 4, 3, 4, 5};
// ---------------------------------------------------------------- SPI flash controller
static u32 fl_status;
static long operations, cut;
// One operation of the flash chip: erases (no data) or clears bits within a page. Power may go in its middle.
static void operate(u32 at, u32 n, const u8 *data) {
  int torn = ++operations == cut;
  if (torn) n /= 2;
  for (u32 i = 0; i < n; i++) {
    u32 a = (data ? (at & ~255u) | ((at + i) & 255) : at + i) % FLASH_SIZE;
    if (data)
      flash[a] &= data[i];
    else
      flash[a] = 255;
  }
  fl_status &= ~2u;
  if (torn) exit(CUT);
}
static void spi_cmd(u32 base, u32 v) {
  u32 *R = &IO(base);
  u32 addr;
#define REG(o) R[(o) / 4]
  u8 *W = (u8 *)&REG(0x80);
  addr = REG(4) & 0xffffff;
  if (v & (1u << 30)) fl_status |= 2;
  if (v & (1u << 29)) fl_status &= ~2u;
  if (v & (1u << 28)) REG(0x80) = 0x1640ef;
  if (v & (1u << 27)) {
    REG(0x10) = fl_status;
    REG(0x80) = fl_status;
  }
  if (v & (1u << 25)) {
    u32 n = REG(4) >> 24;
    operate(addr, n && n < 64 ? n : 64, W);
  }
  if (v & (1u << 24)) operate(addr & ~4095u, 4096, 0);
  if (v & (1u << 23)) operate(addr & ~65535u, 65536, 0);
  if (v & (1u << 31)) { memcpy(W, flash + addr % FLASH_SIZE, 64); }
  if (v & (1u << 18)) {
    u32 user = REG(0x1c), u1 = REG(0x20), u2 = REG(0x24);
    u32 cmd = (user >> 31) ? (u2 & 0xffff) : 0, clen = (u2 >> 28) + 1;
    if (clen <= 8) cmd &= 0xff;
    u32 alen = (user >> 30 & 1) ? (u1 >> 26) + 1 : 0;
    u32 miso = (user >> 28 & 1) ? ((REG(0x2c) & 0xffffff) + 1) / 8 : 0,
        mosi = (user >> 27 & 1) ? ((REG(0x28) & 0xffffff) + 1) / 8 : 0;
    u32 ad = alen == 24 ? REG(4) >> 8 : alen == 32 ? REG(4) >> 8 : alen ? REG(4) >> 8 : 0;
    ad &= 0xffffff;
    if (miso > 64) miso = 64;
    if (mosi > 64) mosi = 64;
    u8 *in = W + ((user >> 24 & 1) ? 32 : 0);
    switch (cmd) {
    case 0x9f: {
      u32 id = 0x1640ef;
      memset(W, 0, 4);
      memcpy(W, &id, miso < 4 ? miso : 4);
      break;
    }
    case 0x05:
      memset(W, 0, miso);
      W[0] = fl_status;
      break;
    case 0x35: memset(W, 0, miso); break;
    case 0x15: memset(W, 0, miso); break;
    case 0x01:
    case 0x31: break;
    case 0x06: fl_status |= 2; break;
    case 0x04: fl_status &= ~2u; break;
    case 0x03:
    case 0x0b:
    case 0x3b:
    case 0xbb:
    case 0x6b:
    case 0xeb:
      for (u32 i = 0; i < miso; i++) W[i] = flash[(ad + i) % FLASH_SIZE];
      break;
    case 0x02: operate(ad, mosi, in); break;
    case 0x20: operate(ad & ~4095u, 4096, 0); break;
    case 0xd8: operate(ad & ~65535u, 65536, 0); break;
    case 0x66:
    case 0x99:
    case 0xff:
    case 0xab: break;
    case 0x5a: memset(W, 0, miso); break;
    case 0x4b:
      for (u32 i = 0; i < miso; i++) W[i] = i * 17 + 1;
      break;
    default:
      fprintf(stderr, "[chip] flash user cmd %02x user %08x addr %06x miso %u mosi %u\n", cmd, user, ad, miso, mosi);
    }
  }
  REG(0) = 0;
}
// ---------------------------------------------------------------- SHA
static u32 sha_h[8];
static const u32 K256[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
static void sha256(const u32 *t) {
  u32 w[64], a[8];
  memcpy(w, t, 64);
  for (int i = 16; i < 64; i++)
    w[i] = w[i - 16] + w[i - 7] + (ROR(w[i - 15], 7) ^ ROR(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
           (ROR(w[i - 2], 17) ^ ROR(w[i - 2], 19) ^ (w[i - 2] >> 10));
  memcpy(a, sha_h, 32);
  for (int i = 0; i < 64; i++) {
    u32 t1 = a[7] + (ROR(a[4], 6) ^ ROR(a[4], 11) ^ ROR(a[4], 25)) + ((a[4] & a[5]) ^ (~a[4] & a[6])) + K256[i] + w[i];
    u32 t2 = (ROR(a[0], 2) ^ ROR(a[0], 13) ^ ROR(a[0], 22)) + ((a[0] & a[1]) ^ (a[0] & a[2]) ^ (a[1] & a[2]));
    for (int j = 7; j; j--) a[j] = a[j - 1];
    a[4] += t1;
    a[0] = t1 + t2;
  }
  for (int i = 0; i < 8; i++) sha_h[i] += a[i];
}
static void sha1(const u32 *t) {
  u32 w[80];
  memcpy(w, t, 64);
  for (int i = 16; i < 80; i++) w[i] = ROR(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 31);
  u32 a = sha_h[0], b = sha_h[1], c = sha_h[2], d = sha_h[3], e = sha_h[4];
  for (int i = 0; i < 80; i++) {
    u32 f, k;
    if (i < 20) {
      f = (b & c) | (~b & d);
      k = 0x5a827999;
    } else if (i < 40) {
      f = b ^ c ^ d;
      k = 0x6ed9eba1;
    } else if (i < 60) {
      f = (b & c) | (b & d) | (c & d);
      k = 0x8f1bbcdc;
    } else {
      f = b ^ c ^ d;
      k = 0xca62c1d6;
    }
    u32 x = ROR(a, 27) + f + e + k + w[i];
    e = d;
    d = c;
    c = ROR(b, 2);
    b = a;
    a = x;
  }
  sha_h[0] += a;
  sha_h[1] += b;
  sha_h[2] += c;
  sha_h[3] += d;
  sha_h[4] += e;
}
static u32 rng_state = 1;
static u32 rng(void) {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 17;
  rng_state ^= rng_state << 5;
  return rng_state;
}
// ---------------------------------------------------------------- peripherals
static void reset(void) {
  txflush();
  exit(RESET);
}
static u32 io_read(u32 a) {
  if (a >= 0x60000000) {
    a -= 0x60000000;
    if (a == 0x35144) return rng();
    a += 0x3ff40000;
    if (a >= 0x3ff80000) return 0;
  }
  if (a >= 0x3ff10000 && a < 0x3ff10600) return mmu[0][(a - 0x3ff10000) / 4];
  if (a >= 0x3ff12000 && a < 0x3ff12600) return mmu[1][(a - 0x3ff12000) / 4];
  switch (a) {
  case 0x3ff40000: {
    if (avail) {
      avail--;
      u8 c = rxq[rxh];
      rxh = (rxh + 1) & 65535;
      return c;
    }
    return 0;
  }
  case 0x3ff40004: return uart_raw();
  case 0x3ff40008: return uart_raw() & IO(0x3ff4000c);
  case 0x3ff4001c: return rxcount();
  case 0x3ff40060: return 0;
  case 0x3ff48034: return 0x41041 * 0 + (1 | (1 << 6)); // reset cause: power on, both cores
  case 0x3ff4800c: return (1u << 30);
  case 0x3ff48010: return (u32)(cycles * 150 / 1000 / mhz);
  case 0x3ff48014: return (u32)((cycles * 150 / 1000 / mhz) >> 32);
  case 0x3ff480b0: return IO(a);
  case 0x3ff75144: return rng();
  case 0x3ff5f068:
  case 0x3ff60068: return IO(a) | (1 << 15);
  case 0x3ff5f06c:
  case 0x3ff60068 + 4: {
    u32 n = IO(a - 4) >> 16 & 0x7fff;
    return (u32)((u64)n * 40000000 / 150000) << 7;
  }
  case 0x3ff5f0a0: return IO(0x3ff5f09c) & IO(0x3ff5f098);
  case 0x3ff5f09c: return IO(a);
  case 0x3ff47024: return frc_now();
  case 0x3ff47000 + 0x4: return (u32)apb();
  case 0x3ff0009c + 0x0: return IO(a);
  case 0x3ff03098 + 4:
  case 0x3ff0308c:
  case 0x3ff030ac:
  case 0x3ff030bc: return 0;
  case 0x3ff003f0:
  case 0x3ff00418: return 1 << 7; // cache state: idle
  case 0x3ff00040:
  case 0x3ff00058: return IO(a) | (1 << 5); // flush done
  }
  if (a == 0x3ff420f8 || a == 0x3ff430f8) return 0; // SPI_EXT2: state machine idle
  return IO(a);
}
static void io_write(u32 a, u32 v) {
  if (a >= 0x60000000) {
    a -= 0x60000000;
    a += 0x3ff40000;
    if (a >= 0x3ff80000) return;
  }
  if (a >= 0x3ff10000 && a < 0x3ff10600) {
    mmu[0][(a - 0x3ff10000) / 4] = v & 0x1ff;
    mapflash((a - 0x3ff10000) / 4);
    return;
  }
  if (a >= 0x3ff12000 && a < 0x3ff12600) {
    mmu[1][(a - 0x3ff12000) / 4] = v & 0x1ff;
    return;
  }
  switch (a) {
  case 0x3ff40000: tx(v); return;
  case 0x3ff40010:
    IO(0x3ff40004) &= ~v;
    update();
    return;
  case 0x3ff5f0a4:
    IO(0x3ff5f09c) &= ~v;
    update();
    return;
  case 0x3ff5f080: {
    u64 n = lac_now();
    IO(0x3ff5f078) = n;
    IO(0x3ff5f07c) = n >> 32;
    return;
  }
  case 0x3ff5f094:
    lac_load = IO(0x3ff5f08c) | ((u64)IO(0x3ff5f090) << 32);
    lac_base = apb();
    return;
  case 0x3ff5f070: {
    u64 n = lac_now();
    IO(a) = v;
    lac_load = n;
    lac_base = apb();
    if (v >> 10 & 1) {
      lac_alarm = IO(0x3ff5f084) | ((u64)IO(0x3ff5f088) << 32);
      lac_armed = 1;
    } else
      lac_armed = 0;
    update();
    return;
  }
  case 0x3ff5f084:
  case 0x3ff5f088:
    IO(a) = v;
    if (lac_armed) lac_alarm = IO(0x3ff5f084) | ((u64)IO(0x3ff5f088) << 32);
    return;
  case 0x3ff5f00c: {
    u64 n = apb() / ((IO(0x3ff5f000) >> 13 & 0xffff) ? (IO(0x3ff5f000) >> 13 & 0xffff) : 65536);
    IO(0x3ff5f004) = n;
    IO(0x3ff5f008) = n >> 32;
    return;
  }
  case 0x3ff5f030: {
    u64 n = apb() / ((IO(0x3ff5f024) >> 13 & 0xffff) ? (IO(0x3ff5f024) >> 13 & 0xffff) : 65536);
    IO(0x3ff5f028) = n;
    IO(0x3ff5f02c) = n >> 32;
    return;
  }
  case 0x3ff47020:
    IO(a) = v;
    frc_load = v;
    frc_base = apb();
    return;
  case 0x3ff47028: {
    u32 n = frc_now();
    IO(a) = v;
    frc_load = n;
    frc_base = apb();
    return;
  }
  case 0x3ff4702c:
    IO(a) = 0;
    update();
    return;
  case 0x3ff47030:
    IO(a) = v;
    frc_alarm = v;
    frc_armed = 1;
    update();
    return;
  case 0x3ff42000:
  case 0x3ff43000:
    IO(a) = v;
    spi_cmd(a, v);
    return;
  case 0x3ff03080: {
    static const u32 i[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(sha_h, i, 20);
    sha1(&IO(0x3ff03000));
    return;
  }
  case 0x3ff03084: sha1(&IO(0x3ff03000)); return;
  case 0x3ff03088: memcpy(&IO(0x3ff03000), sha_h, 20); return;
  case 0x3ff03090: {
    static const u32 i[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(sha_h, i, 32);
    sha256(&IO(0x3ff03000));
    return;
  }
  case 0x3ff03094: sha256(&IO(0x3ff03000)); return;
  case 0x3ff03098: memcpy(&IO(0x3ff03000), sha_h, 32); return;
  case 0x3ff000dc:
  case 0x3ff000e0:
  case 0x3ff000e4:
  case 0x3ff000e8:
    IO(a) = v;
    update();
    return;
  case 0x3ff0003c:
    IO(a) = v;
    {
      static const u32 f[4] = {80, 160, 240, 240};
      u32 n = f[v & 3];
      if (n != mhz) { // keep time continuous
        u64 l = lac_now();
        u32 f2 = frc_now();
        cycles = cycles * n / mhz;
        mhz = n;
        lac_load = l;
        lac_base = apb();
        frc_load = f2;
        frc_base = apb();
      }
    }
    return;
  case 0x3ff48000:
    IO(a) = v;
    if (v & (1u << 31 | 1u << 5)) reset();
    return;
  case 0x3ff5f048:
  case 0x3ff6004c: break;
  }
  IO(a) = v;
  if ((a >= 0x3ff00104 && a < 0x3ff00330) || a == 0x3ff4000c || a == 0x3ff5f098) update();
}
// ---------------------------------------------------------------- core
static inline u32 *A(Cpu *c, int n) { return &c->ar[(c->wb * 4 + n) & 63]; }
static int run(Cpu *c, int n, u32 stop);
static u32 ccount(Cpu *c) { return c->ccbase + c->done; }
static void exception(Cpu *c, u32 cause, u32 at) {
  c->exccause = cause;
  if (c->ps & EXCM) {
    c->depc = at;
    c->pc = c->vecbase + 0x3c0;
    die("double exception cause %u", cause, 0);
  } else {
    c->epc[1] = at;
    c->pc = c->vecbase + ((c->ps & UM) ? 0x340 : 0x300);
  }
  c->ps |= EXCM;
}
static void spill(Cpu *c) { // all frames but the current one, oldest first
  for (int k = 1; k < 16; k++) {
    u32 b = (c->wb + k) & 15;
    if (!(c->ws >> b & 1)) continue;
    int n = 1;
    while (!(c->ws >> ((b + n) & 15) & 1)) n++;
    u32 *r = c->ar;
#define Q(i) r[(b * 4 + (i)) & 63]
    u32 nsp = Q(n * 4 + 1);
    for (int i = 0; i < 4; i++) w32(nsp - 16 + 4 * i, Q(i));
    if (n > 1) {
      u32 csp = r32(Q(1) - 12);
      for (int i = 4; i < n * 4; i++) w32(csp - 16 - 4 * (n * 4 - i) + 0, Q(i));
    }
    c->ws &= ~(1u << b);
  }
}
static u8 crc8(const u8 *p, int n) {
  u8 c = 0;
  while (n--) {
    c ^= *p++;
    for (int i = 0; i < 8; i++) c = c & 1 ? (c >> 1) ^ 0x8c : c >> 1;
  }
  return c;
}
static u8 mdb[1 << 16];
static u32 mdn; // what MD5Update was given
static void md5(const u8 *m, u32 n, u8 *out) {
  static const u32 S[16] = {7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21};
  u32 K[64];
  for (int i = 0; i < 64; i++) K[i] = (u32)(int64_t)floor(fabs(sin(i + 1)) * 4294967296.0);
  u32 h[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  u32 t = (n + 9 + 63) / 64 * 64;
  u8 *b = calloc(1, t);
  memcpy(b, m, n);
  b[n] = 0x80;
  u64 bits = (u64)n * 8;
  memcpy(b + t - 8, &bits, 8);
  for (u32 o = 0; o < t; o += 64) {
    u32 w[16];
    memcpy(w, b + o, 64);
    u32 a = h[0], q = h[1], c = h[2], d = h[3];
    for (int i = 0; i < 64; i++) {
      u32 f, g;
      if (i < 16) {
        f = (q & c) | (~q & d);
        g = i;
      } else if (i < 32) {
        f = (d & q) | (~d & c);
        g = (5 * i + 1) & 15;
      } else if (i < 48) {
        f = q ^ c ^ d;
        g = (3 * i + 5) & 15;
      } else {
        f = c ^ (q | ~d);
        g = (7 * i) & 15;
      }
      u32 x = a + f + K[i] + w[g];
      a = d;
      d = c;
      c = q;
      u32 sh = S[(i >> 4) * 4 + (i & 3)];
      q += (x << sh) | (x >> (32 - sh));
    }
    h[0] += a;
    h[1] += q;
    h[2] += c;
    h[3] += d;
  }
  memcpy(out, h, 16);
  free(b);
}
#define MAGIC 0x4006fff0u
static u32 call_guest(Cpu *c, u32 fn, int n, u32 *args) {
  int ci = (c->ps >> 16 & 3) * 4;
  u32 save[8], sps = c->ps, spc = c->pc;
  for (int i = 0; i < 8; i++) save[i] = *A(c, 8 + i);
  // the ROM function's own frame is not entered; its callers' registers up to a(ci-1) stay
  if (ci != 8) { /* move to a call8 from here is only right for ci<=8 */
  }
  *A(c, 8) = 2u << 30 | (MAGIC & 0x3fffffff);
  for (int i = 0; i < n; i++) *A(c, 10 + i) = args[i];
  c->ps = (c->ps & ~(3u << 16)) | 2u << 16;
  u32 il = c->ps & 15;
  if (il < 3) c->ps = (c->ps & ~15u) | 3;
  c->pc = fn;
  u32 d = c->done;
  run(c, 200000000, MAGIC);
  if (c->pc != MAGIC) die("nested call did not return %08x", fn, 0);
  u32 r = *A(c, 10);
  c->done = d;
  for (int i = 0; i < 8; i++) *A(c, 8 + i) = save[i];
  c->ps = (c->ps & ~(0xfu | 3u << 16)) | (sps & (0xfu | 3u << 16));
  c->pc = spc;
  return r;
}
static u32 systab(Cpu *c, int i) { return r32(r32(c->id ? 0x3ffae020 : 0x3ffae024) + 4 * i); }
static u32 gstrlen(u32 s) {
  u32 n = 0;
  while (r8(s + n)) n++;
  return n;
}
static void gprintf(Cpu *c, int base, void (*put)(u8)) {
  u32 f = *A(c, base + 2);
  int ai = 3;
  u32 sp = *A(c, 1);
  int si = 0;
#define NEXT() (ai < 8 ? *A(c, base + ai++) : r32(sp + 4 * si++))
  for (;;) {
    u8 ch = r8(f++);
    if (!ch) break;
    if (ch != '%') {
      if (ch == '\n') put('\r');
      put(ch);
      continue;
    }
    char spec[32];
    int n = 0;
    spec[n++] = '%';
    u8 k;
    for (;;) {
      k = r8(f++);
      if (!k) return;
      if (k == 'l' || k == 'h' || k == 'z') continue;
      spec[n++] = k;
      if (isalpha(k) || k == '%') break;
    }
    spec[n] = 0;
    char out[512];
    if (k == '%')
      strcpy(out, "%");
    else if (k == 's') {
      u32 s = NEXT();
      char b[400];
      int i = 0;
      if (s)
        while (i < 399 && (b[i] = r8(s + i))) i++;
      b[i] = 0;
      snprintf(out, 512, spec, b);
    } else if (k == 'p') {
      snprintf(out, 512, "0x%x", NEXT());
    } else
      snprintf(out, 512, spec, NEXT());
    for (char *q = out; *q; q++) put(*q);
  }
}
static void put_err(u8 c) { tx(c); }
static double dget(u32 lo, u32 hi) {
  u64 v = lo | (u64)hi << 32;
  double d;
  memcpy(&d, &v, 8);
  return d;
}
static void rom_init(void) {
  u32 fc[6] = {0x1640ef, 4 << 20, 65536, 4096, 256, 0xffff};
  memcpy(dram + 0x270, fc, 24);
  // _ctype_ table
  u8 *t = romd + 0x6354;
  for (int i = 0; i < 128; i++) {
    u8 v = 0;
    if (isupper(i)) v |= 1;
    if (islower(i)) v |= 2;
    if (isdigit(i)) v |= 4;
    if (isspace(i)) v |= 8;
    if (ispunct(i)) v |= 16;
    if (iscntrl(i)) v |= 32;
    if (isxdigit(i) && !isdigit(i)) v |= 64;
    if (i == ' ') v |= 0200;
    t[1 + i] = v;
  }
  u32 ct = 0x3ff96354;
  memcpy(dram + 0x0c, &ct, 4);
}
static u32 next_file = 0x3ff9e000;
static int rom(Cpu *c) {
  int ci = c->ps >> 16 & 3, B = ci * 4;
  u32 pc = c->pc;
#define X(i) (*A(c, B + 2 + (i)))
#define RET                                                                                                            \
  ({                                                                                                                   \
    c->pc = ci ? ((*A(c, B) & 0x3fffffff) | 0x40000000) : *A(c, 0);                                                    \
    return 1;                                                                                                          \
  })
#define RV(v)                                                                                                          \
  ({                                                                                                                   \
    u32 v_ = (v);                                                                                                      \
    X(0) = v_;                                                                                                         \
    RET;                                                                                                               \
  })
#define RV64(v)                                                                                                        \
  ({                                                                                                                   \
    u64 v_ = (v);                                                                                                      \
    X(0) = (u32)v_;                                                                                                    \
    X(1) = v_ >> 32;                                                                                                   \
    RET;                                                                                                               \
  })
#define RD(d)                                                                                                          \
  ({                                                                                                                   \
    double d_ = (d);                                                                                                   \
    u64 v_;                                                                                                            \
    memcpy(&v_, &d_, 8);                                                                                               \
    RV64(v_);                                                                                                          \
  })
#define D0 dget(X(0), X(1))
#define D1 dget(X(2), X(3))
#define L0 ((u64)X(0) | (u64)X(1) << 32)
#define L1 ((u64)X(2) | (u64)X(3) << 32)
#define NZ(n, d, p) (p)
  // window vectors of the ROM
  if (pc < 0x40000180 && !(pc & 63)) {
    u32 v = pc - 0x40000000;
    int n = v < 0x80 ? 1 : v < 0x100 ? 2 : 3;
    u32 owb = c->ps >> 8 & 15;
    if (!(v & 0x40)) {
      u32 nsp = *A(c, n * 4 + 1);
      for (int i = 0; i < 4; i++) w32(nsp - 16 + 4 * i, *A(c, i));
      if (n > 1) {
        u32 csp = r32(*A(c, 1) - 12);
        for (int i = 4; i < n * 4; i++) w32(csp - 16 - 4 * (n * 4 - i), *A(c, i));
      }
      c->ws &= ~(1u << c->wb);
    } else {
      u32 nsp = *A(c, n * 4 + 1);
      for (int i = 0; i < 4; i++) *A(c, i) = r32(nsp - 16 + 4 * i);
      if (n > 1) {
        u32 csp = r32(*A(c, 1) - 12);
        for (int i = 4; i < n * 4; i++) *A(c, i) = r32(csp - 16 - 4 * (n * 4 - i));
      }
      c->ws |= 1u << c->wb;
    }
    c->ps &= ~EXCM;
    c->pc = c->epc[1];
    c->wb = owb;
    return 1;
  }
  switch (pc) {
  case 0x4000c2c8:
  case 0x4000c0bc: {
    u32 d = X(0), s = X(1), n = X(2);
    for (u32 i = 0; i < n; i++) {
      if (!((d + i) & 3) && !((s + i) & 3) && n - i >= 4) {
        w32(d + i, r32(s + i));
        i += 3;
      } else
        w8(d + i, r8(s + i));
    }
    RET;
  }
  case 0x4000c3c0: {
    u32 d = X(0), s = X(1), n = X(2);
    if (d < s)
      for (u32 i = 0; i < n; i++) w8(d + i, r8(s + i));
    else
      for (u32 i = n; i--;) w8(d + i, r8(s + i));
    RET;
  }
  case 0x4000c44c: {
    u32 d = X(0), n = X(2);
    u8 v = X(1);
    u32 i = 0;
    for (; i < n && ((d + i) & 3); i++) w8(d + i, v);
    for (; n - i >= 4; i += 4) w32(d + i, v * 0x01010101u);
    for (; i < n; i++) w8(d + i, v);
    RET;
  }
  case 0x4000c1f4: {
    u32 d = X(0), n = X(1);
    for (u32 i = 0; i < n; i++) w8(d + i, 0);
    RET;
  }
  case 0x4000c260: {
    u32 x = X(0), y = X(1), n = X(2);
    for (u32 i = 0; i < n; i++) {
      int k = (int)r8(x + i) - (int)r8(y + i);
      if (k) RV(k);
    }
    RV(0);
  }
  case 0x4000c244: {
    u32 x = X(0), n = X(2);
    u8 v = X(1);
    for (u32 i = 0; i < n; i++)
      if (r8(x + i) == v) RV(x + i);
    RV(0);
  }
  case 0x4000c400: {
    u32 x = X(0), n = X(2);
    u8 v = X(1);
    for (u32 i = n; i--;)
      if (r8(x + i) == v) RV(x + i);
    RV(0);
  }
  case 0x400014c0: RV(gstrlen(X(0)));
  case 0x4000c628: {
    u32 n = 0;
    while (n < X(1) && r8(X(0) + n)) n++;
    RV(n);
  }
  case 0x40001274:
  case 0x40001398: {
    u32 x = X(0), y = X(1);
    for (;; x++, y++) {
      int p = r8(x), q = r8(y);
      if (p != q || !p) RV(p - q);
    }
  }
  case 0x4000c5f4: {
    u32 x = X(0), y = X(1), n = X(2);
    for (u32 i = 0; i < n; i++) {
      int p = r8(x + i), q = r8(y + i);
      if (p != q || !p) RV(p - q);
    }
    RV(0);
  }
  case 0x400011cc: {
    u32 x = X(0), y = X(1);
    for (;; x++, y++) {
      int p = tolower(r8(x)), q = tolower(r8(y));
      if (p != q || !p) RV(p - q);
    }
  }
  case 0x40001550: {
    u32 x = X(0), y = X(1), n = X(2);
    for (u32 i = 0; i < n; i++) {
      int p = tolower(r8(x + i)), q = tolower(r8(y + i));
      if (p != q || !p) RV(p - q);
    }
    RV(0);
  }
  case 0x400013ac: {
    u32 d = X(0), s = X(1);
    u8 v;
    do {
      v = r8(s++);
      w8(d++, v);
    } while (v);
    RET;
  }
  case 0x400015d4: {
    u32 d = X(0), s = X(1), n = X(2);
    u32 i = 0;
    for (; i < n; i++) {
      u8 v = r8(s + i);
      w8(d + i, v);
      if (!v) break;
    }
    for (; i < n; i++) w8(d + i, 0);
    RET;
  }
  case 0x4000c584: {
    u32 d = X(0), s = X(1), n = X(2), l = gstrlen(s);
    if (n) {
      u32 m = l < n - 1 ? l : n - 1;
      for (u32 i = 0; i < m; i++) w8(d + i, r8(s + i));
      w8(d + m, 0);
    }
    RV(l);
  }
  case 0x40001470: {
    u32 d = X(0), s = X(1), n = X(2), dl = 0, l = gstrlen(s);
    while (dl < n && r8(d + dl)) dl++;
    if (dl < n) {
      u32 i = 0;
      for (; dl + i + 1 < n && i < l; i++) w8(d + dl + i, r8(s + i));
      w8(d + dl + i, 0);
    }
    RV(dl + l);
  }
  case 0x4000c518: {
    u32 d = X(0) + gstrlen(X(0)), s = X(1);
    u8 v;
    do {
      v = r8(s++);
      w8(d++, v);
    } while (v);
    RET;
  }
  case 0x4000c53c: {
    u32 s = X(0);
    u8 v = X(1);
    for (;; s++) {
      u8 k = r8(s);
      if (k == v) RV(s);
      if (!k) RV(0);
    }
  }
  case 0x40001708: {
    u32 s = X(0), b = 0;
    u8 v = X(1);
    for (;; s++) {
      u8 k = r8(s);
      if (k == v) b = s;
      if (!k) RV(b);
    }
  }
  case 0x4000c674: {
    u32 h = X(0), n = X(1), l = gstrlen(n);
    for (;; h++) {
      u32 i = 0;
      while (i < l && r8(h + i) == r8(n + i)) i++;
      if (i == l) RV(h);
      if (!r8(h)) RV(0);
    }
  }
  case 0x4000c558: {
    u32 s = X(0), i = 0;
    for (; r8(s + i); i++)
      for (u32 k = X(1); r8(k); k++)
        if (r8(k) == r8(s + i)) RV(i);
    RV(i);
  }
  case 0x4000c648: {
    u32 s = X(0), i = 0;
    for (; r8(s + i); i++) {
      int f = 0;
      for (u32 k = X(1); r8(k); k++)
        if (r8(k) == r8(s + i)) f = 1;
      if (!f) break;
    }
    RV(i);
  }
  case 0x4000143c: {
    u32 s = X(0), n = gstrlen(s) + 1;
    u32 re = call_guest(c, systab(c, 0), 0, 0);
    u32 ar[2] = {re, n};
    u32 p = call_guest(c, systab(c, 1), 2, ar);
    if (p)
      for (u32 i = 0; i < n; i++) w8(p + i, r8(s + i));
    RV(p);
  }
  case 0x400016b0: {
    u32 s = X(0), n = 0;
    while (n < X(1) && r8(s + n)) n++;
    u32 re = call_guest(c, systab(c, 0), 0, 0);
    u32 ar[2] = {re, n + 1};
    u32 p = call_guest(c, systab(c, 1), 2, ar);
    if (p) {
      for (u32 i = 0; i < n; i++) w8(p + i, r8(s + i));
      w8(p + n, 0);
    }
    RV(p);
  }
  case 0x400566c4:
  case 0x400566ec: {
    char b[32];
    int i = 0;
    while (i < 31 && (b[i] = r8(X(0) + i))) i++;
    b[i] = 0;
    RV(atoi(b));
  }
  case 0x4005681c:
  case 0x4005692c: {
    char b[64], *e;
    int i = 0;
    while (i < 63 && (b[i] = r8(X(0) + i))) i++;
    b[i] = 0;
    u32 v = pc == 0x4005681c ? (u32)strtoll(b, &e, X(2)) : (u32)strtoull(b, &e, X(2));
    if (X(1)) w32(X(1), X(0) + (e - b));
    RV(v);
  }
  case 0x400566b4:
  case 0x40056678: {
    char b[40];
    u32 base = X(2);
    i32 v = X(0);
    u32 u = v;
    int neg = base == 10 && v < 0;
    if (neg) u = -u;
    char t[40];
    int n = 0;
    do {
      t[n++] = "0123456789abcdefghijklmnopqrstuvwxyz"[u % base];
      u /= base;
    } while (u);
    int k = 0;
    if (neg) b[k++] = '-';
    while (n) b[k++] = t[--n];
    b[k] = 0;
    for (int i = 0; i <= k; i++) w8(X(1) + i, b[i]);
    RV(X(1));
  }
  case 0x40056424: {
    u32 b = X(0), n = X(1), sz = X(2), cmp = X(3);
    u8 *tmp = malloc(sz), *t2 = malloc(sz); // insertion sort
    for (u32 i = 1; i < n; i++)
      for (u32 j = i; j; j--) {
        u32 ar[2] = {b + (j - 1) * sz, b + j * sz};
        if ((i32)call_guest(c, cmp, 2, ar) <= 0) break;
        for (u32 k = 0; k < sz; k++) {
          u8 x = r8(ar[0] + k);
          w8(ar[0] + k, r8(ar[1] + k));
          w8(ar[1] + k, x);
        }
      }
    free(tmp);
    free(t2);
    RET;
  }
  case 0x40056340: RV((i32)X(0) < 0 ? -X(0) : X(0));
  case 0x40001868: RV(tolower(X(0) & 255));
  case 0x40001884: RV(toupper(X(0) & 255));
  // setjmp, longjmp
  case 0x40056268: {
    u32 j = X(0);
    int n = B ? B : 4;
    w32(j, c->wb << 8 | ci);
    w32(j + 4, *A(c, B));
    for (int i = 0; i < n; i++) w32(j + 8 + 4 * i, *A(c, i));
    X(0) = 0;
    RET;
  }
  case 0x400562cc: {
    u32 j = X(0), v = X(1);
    if (!v) v = 1;
    spill(c);
    c->ws = 1u << c->wb;
    u32 k = r32(j) & 3;
    int n = k * 4;
    u32 ra = r32(j + 4);
    for (int i = 0; i < n; i++) *A(c, i) = r32(j + 8 + 4 * i);
    *A(c, n + 2) = v;
    c->pc = (ra & 0x3fffffff) | 0x40000000;
    return 1;
  }
  // system
  case 0x400081d4: RV(1);
  case 0x400081f4: RV(0);
  case 0x40008534:
    if (X(0)) {
      X(0)--;
      return 2;
    }
    RET;
  case 0x40008550: w32(0x3ffe01e0, X(0)); RET;
  case 0x4000855c: {
    u32 v = r32(0x3ffe01e0);
    RV(v ? v : mhz);
  }
  case 0x40008588: RV(40000000);
  case 0x4000856c: RV(1);
  case 0x4000824c:
  case 0x40008264: reset(); return 0;
  case 0x40007d54: gprintf(c, B, put_err); RV(0);
  case 0x40007d28:
  case 0x40007d18:
  case 0x40007d38:
  case 0x40009028:
  case 0x400090cc:
  case 0x40008fd0:
  case 0x40009120:
  case 0x40009258:
  case 0x40009278: RV(0);
  case 0x40009200:
  case 0x4000922c: tx(X(0)); RV(0);
  case 0x4000681c: {
    u32 cpu_ = X(0), src = X(1), n = X(2);
    io_write((cpu_ ? 0x3ff00218 : 0x3ff00104) + 4 * src, n);
    RET;
  }
  case 0x4000689c: {
    u32 v = X(0);
    IO(0x3ff00038) = v;
    if (v && !cpu[1].running) {
      cpu[1].pc = v;
      cpu[1].running = 1;
      cpu[1].ccbase = cpu[0].ccbase;
      *A(&cpu[1], 8) = 2u << 30 | 0x1000;
      cpu[1].ps |= 2u << 16;
    }
    RET;
  }
  case 0x40009a14:
  case 0x40009a84:
  case 0x40009ab8:
  case 0x40009950:
  case 0x400095a4:
  case 0x400097f4: RV(0);
  case 0x400095e0: {
    u32 cp = X(0), va = X(2), pa = X(3), n = X(5) == 0 ? 0 : X(5);
    u32 e = va < 0x40000000 ? (va - 0x3f400000) >> 16 : 64 + ((va - 0x40000000) >> 16);
    for (u32 k = 0; k < n; k++) {
      mmu[cp & 1][e + k] = (pa >> 16) + k;
      if (!(cp & 1)) mapflash(e + k);
    }
    RV(0);
  }
  case 0x40009b24:
  case 0x40009b5c:
  case 0x40009edc:
  case 0x40009f0c:
  case 0x40009fdc:
  case 0x4000a11c:
  case 0x4000a348:
  case 0x4000a22c:
  case 0x4000a734:
  case 0x4000a484: RV(0);
  case 0x40009b88:
  case 0x40009b9c: RV(0);
  case 0x40008658: RV(0);
  case 0x40008710: RV(0);
  case 0x40008208: RET;
  case 0x400081a4: RV(0);
  case 0x40062bc8:
  case 0x40063238:
  case 0x40062a6c:
  case 0x40061ddc: RV(0);
  case 0x400041a4:
  case 0x400041fc: RET;
  case 0x40004148:
  case 0x400041c0: RV(0);
  case 0x4000bfdc: {
    u32 o = c->ps;
    c->ps = (c->ps & ~15u) | (X(0) & 15);
    RV(o);
  }
  case 0x4000c050: RV(ccount(c));
  case 0x4000c1e4: RV(c->intr);
  case 0x4000c1ec: c->intr &= ~X(0); RET;
  case 0x4005d144: {
    u8 b[256];
    u32 n = X(1);
    for (u32 i = 0; i < n && i < 256; i++) b[i] = r8(X(0) + i);
    RV(crc8(b, n));
  }
  case 0x4005cfec: {
    u32 k = ~X(0), p = X(1), n = X(2);
    while (n--) {
      k ^= r8(p++);
      for (int i = 0; i < 8; i++) k = k & 1 ? (k >> 1) ^ 0xedb88320 : k >> 1;
    }
    RV(~k);
  }
  case 0x4005d024: {
    u32 k = ~X(0), p = X(1), n = X(2);
    while (n--) {
      k ^= (u32)r8(p++) << 24;
      for (int i = 0; i < 8; i++) k = k >> 31 ? (k << 1) ^ 0x04c11db7 : k << 1;
    }
    RV(~k);
  }
  case 0x4005c07c:
  case 0x4005c0a8: RET;
  case 0x4005da7c: mdn = 0; RET;
  case 0x4005da9c: {
    u32 n = X(2);
    for (u32 i = 0; i < n && mdn < sizeof mdb; i++) mdb[mdn++] = r8(X(1) + i);
    RET;
  }
  case 0x4005db1c: {
    u8 o[16];
    md5(mdb, mdn, o);
    for (int i = 0; i < 16; i++) w8(X(0) + i, o[i]);
    RET;
  }
  case 0x400621b0: w32(X(0), (X(1) & 255) == 5 ? fl_status : 0); RV(0);
  // libgcc
  case 0x40064ae0: RV(__builtin_bswap32(X(0)));
  case 0x40064b08: RV64(__builtin_bswap64(L0));
  case 0x4000c818: RV64(X(2) > 63 ? 0 : L0 << X(2));
  case 0x4000c830: RV64((int64_t)L0 >> (X(2) & 63));
  case 0x4000c84c: RV64(L0 >> (X(2) & 63));
  case 0x4000ca84: RV64((int64_t)L0 / (int64_t)L1);
  case 0x4000cd4c: RV64((int64_t)L0 % (int64_t)L1);
  case 0x4000cff8: RV64(L0 / L1);
  case 0x4000d280: RV64(L0 % L1);
  case 0x4000c9fc: RV64(L0 * L1);
  case 0x4000ca14: RV64(-L0);
  case 0x4000c7e8: RV(X(0) ? __builtin_clz(X(0)) : 32);
  case 0x4000c7f0: RV(X(0) ? __builtin_ctz(X(0)) : 32);
  case 0x4000c804: RV(__builtin_ffs(X(0)));
  case 0x4000ca50: RV(L0 ? __builtin_clzll(L0) : 64);
  case 0x4000ca64: RV(L0 ? __builtin_ctzll(L0) : 64);
  case 0x40002ed0: RV(__builtin_popcount(X(0)));
  case 0x40002ef8: RV(__builtin_popcountll(L0));
  case 0x40002590: RD(D0 + D1);
  case 0x400026e4: RD(D0 - D1);
  case 0x4006358c: RD(D0 * D1);
  case 0x40002954: RD(D0 / D1);
  case 0x400634a0: RD(-D0);
  case 0x40002c34: {
    float f;
    u32 v = X(0);
    memcpy(&f, &v, 4);
    RD((double)f);
  }
  case 0x40002b90: {
    float f = (float)D0;
    u32 v;
    memcpy(&v, &f, 4);
    RV(v);
  }
  case 0x4000c944: RD((double)(i32)X(0));
  case 0x4000c938: RD((double)X(0));
  case 0x4000c988: RD((double)(int64_t)L0);
  case 0x4000c978: RD((double)L0);
  case 0x40002a78: RV((u32)(i32)D0);
  case 0x40002b30: RV((u32)(u64)D0);
  case 0x40002ac4: RV64((u64)(int64_t)D0);
  case 0x400636a8: RV(D0 != D1);
  case 0x40063768: RV(isnan(D0) || isnan(D1) ? -1 : D0 < D1 ? -1 : D0 > D1);
  case 0x400636dc: RV(isnan(D0) || isnan(D1) ? -1 : D0 < D1 ? -1 : D0 > D1);
  case 0x40063704: RV(isnan(D0) || isnan(D1) ? 1 : D0 < D1 ? -1 : D0 > D1);
  case 0x40063790: RV(isnan(D0) || isnan(D1) ? 1 : D0 < D1 ? -1 : D0 > D1);
  case 0x400637f4: RV(isnan(D0) || isnan(D1));
  case 0x4000244c: {
    float f;
    u32 v = X(0);
    memcpy(&f, &v, 4);
    RV64((u64)(int64_t)f);
  }
  case 0x40002504: {
    float f;
    u32 v = X(0);
    memcpy(&f, &v, 4);
    RV64((u64)f);
  }
  case 0x400020c0: RV(X(0) ^ 0x80000000u);
  case 0x4000c8b0: {
    float f = (float)L0;
    u32 v;
    memcpy(&v, &f, 4);
    RV(v);
  }
  case 0x4000c8c0: {
    float f = (float)(int64_t)L0;
    u32 v;
    memcpy(&v, &f, 4);
    RV(v);
  }
  case 0x4000234c: {
    float f, g;
    u32 v = X(0), w = X(1);
    memcpy(&f, &v, 4);
    memcpy(&g, &w, 4);
    f /= g;
    memcpy(&v, &f, 4);
    RV(v);
  }
  // newlib's files
  case 0x40001e38: w32(X(1) ? X(0) + 0x18 : X(0) + 0x18, 1); RET; // __sinit
  case 0x40001e08:
  case 0x40001e14:
  case 0x40001d48: RET;
  case 0x40001e90: {
    u32 p = next_file;
    next_file += 0x80;
    for (u32 i = 0; i < 0x80; i += 4) w32(p + i, 0);
    w16(p + 0xc, 1);
    w16(p + 0xe, 0xffff);
    RV(p);
  }
  case 0x40059394:
  case 0x40059320: RV(0);
  case 0x40058cc8: RV(0);
  case 0x4005893c: {
    u32 uio = X(2), iov = r32(uio), n = r32(uio + 4);
    for (u32 i = 0; i < n; i++) {
      u32 b = r32(iov + 8 * i), l = r32(iov + 8 * i + 4);
      for (u32 k = 0; k < l; k++) {
        u8 ch = r8(b + k);
        if (ch == '\n') tx('\r');
        tx(ch);
      }
    }
    w32(uio + 8, 0);
    w32(uio + 4, 0);
    RV(0);
  }
  }
  return 0;
}
static void irq(Cpu *c) {
  u32 p = c->intr & c->inten;
  if (!p) return;
  int best = 0;
  u32 q = p;
  while (q) {
    int i = __builtin_ctz(q);
    q &= q - 1;
    if (intlevel[i] > best) best = intlevel[i];
  }
  int lv = c->ps & 15;
  if ((c->ps & EXCM) && lv < 3) lv = 3;
  if (best <= lv) return;
  c->waiting = 0;
  if (best == 1)
    exception(c, 4, c->pc);
  else {
    static const u32 off[8] = {0, 0, 0x180, 0x1c0, 0x200, 0x240, 0x280, 0x2c0};
    c->epc[best] = c->pc;
    c->eps[best] = c->ps;
    c->ps = (c->ps & ~15u) | best | EXCM;
    c->pc = c->vecbase + off[best];
  }
}
static u32 rsr(Cpu *c, int n, u32 pc) {
  switch (n) {
  case 0: return c->lbeg;
  case 1: return c->lend;
  case 2: return c->lcount;
  case 3: return c->sar;
  case 4: return c->br;
  case 12: return c->scompare;
  case 16: return c->acclo;
  case 17: return c->acchi & 0xff;
  case 32:
  case 33:
  case 34:
  case 35: return c->m[n - 32];
  case 72: return c->wb;
  case 73: return c->ws;
  case 96: return c->ibreake;
  case 97: return c->memctl;
  case 99: return c->atomctl;
  case 104: return 0;
  case 128:
  case 129:
  case 144:
  case 145:
  case 160:
  case 161: return 0;
  case 176: return 0xc2bcfffe;
  case 208: return 0x1cc5fe96;
  case 192: return c->depc;
  case 224: return c->cpenable;
  case 226: return c->intr;
  case 227: return 0;
  case 228: return c->inten;
  case 230: return c->ps;
  case 231: return c->vecbase;
  case 232: return c->exccause;
  case 233: return c->debugcause;
  case 234: return ccount(c);
  case 235: return c->prid;
  case 236: return c->icount;
  case 237: return c->icountlevel;
  case 238: return c->excvaddr;
  case 240:
  case 241:
  case 242: return c->ccomp[n - 240];
  case 244:
  case 245:
  case 246:
  case 247: return c->misc[n - 244];
  }
  if (n >= 177 && n <= 183) return c->epc[n - 176];
  if (n >= 194 && n <= 199) return c->eps[n - 192];
  if (n >= 209 && n <= 215) return c->exs[n - 208];
  c->pc = pc;
  die("rsr %u", n, 0);
  return 0;
}
static void wsr(Cpu *c, int n, u32 v, u32 pc) {
  switch (n) {
  case 0: c->lbeg = v; return;
  case 1: c->lend = v; return;
  case 2: c->lcount = v; return;
  case 3: c->sar = v & 63; return;
  case 4: c->br = v & 0xffff; return;
  case 12: c->scompare = v; return;
  case 16: c->acclo = v; return;
  case 17: c->acchi = v; return;
  case 32:
  case 33:
  case 34:
  case 35: c->m[n - 32] = v; return;
  case 72: c->wb = v & 15; return;
  case 73: c->ws = v & 0xffff; return;
  case 96: c->ibreake = v; return;
  case 97: c->memctl = v; return;
  case 99: c->atomctl = v; return;
  case 104:
  case 106:
  case 128:
  case 129:
  case 144:
  case 145:
  case 160:
  case 161:
  case 89:
  case 83: return;
  case 192: c->depc = v; return;
  case 224: c->cpenable = v; return;
  case 226: c->intr |= v & ((1 << 7) | (1u << 29)); return;
  case 227:
    c->intr &= ~(v & ((1 << 7) | (1u << 29) | (1u << 10) | (1u << 22) | (1u << 28) | (1u << 30) | (1 << 11)));
    return;
  case 228: c->inten = v; return;
  case 230: c->ps = v & 0x7ffff; return;
  case 231: c->vecbase = v; return;
  case 232: c->exccause = v; return;
  case 233: c->debugcause = v; return;
  case 234: c->ccbase = v - c->done; return;
  case 236: c->icount = v; return;
  case 237: c->icountlevel = v; return;
  case 238: c->excvaddr = v; return;
  case 240:
  case 241:
  case 242: {
    static const int b[3] = {6, 15, 16};
    c->ccomp[n - 240] = v;
    c->intr &= ~(1u << b[n - 240]);
    return;
  }
  case 244:
  case 245:
  case 246:
  case 247: c->misc[n - 244] = v; return;
  }
  if (n >= 177 && n <= 183) {
    c->epc[n - 176] = v;
    return;
  }
  if (n >= 194 && n <= 199) {
    c->eps[n - 192] = v;
    return;
  }
  if (n >= 209 && n <= 215) {
    c->exs[n - 208] = v;
    return;
  }
  c->pc = pc;
  die("wsr %u", n, 0);
}
static inline int lim(Cpu *c) {
  if ((c->ps & (WOE | EXCM)) != WOE) return 16;
  u32 w = (c->ws | c->ws << 16) >> c->wb;
  return (w & 2) ? 4 : (w & 4) ? 8 : (w & 8) ? 12 : 16;
}
static const i32 b4c[16] = {-1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256};
static const u32 b4cu[16] = {32768, 65536, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256};
// The steps of a division or a square root: the whole result comes from MKDADJ or MKSADJ, ADDEXPM moves it to its
// place.
static int fpdiv(Cpu *c, int t, int r, int s) {
  float *f = c->f;
  switch (t) {
  case 7:
  case 9:
  case 11:
  case 14: return 1;
  case 8: f[r] = 1 / f[s]; return 1;
  case 10: f[r] = 1 / sqrtf(f[s]); return 1;
  case 12: f[r] = sqrtf(f[s]); return 1;
  case 13: f[r] = f[s] / f[r]; return 1;
  case 15: f[r] = f[s]; return 1;
  }
  return 0;
}
static int run(Cpu *c, int n, u32 stop) {
  u32 pc = c->pc;
  int L = lim(c);
  u32 *ar = c->ar;
#define a(i) ar[(c->wb * 4 + (i)) & 63]
#define CK(i)                                                                                                          \
  do {                                                                                                                 \
    if ((int)(i) >= L) goto ovf;                                                                                       \
  } while (0)
  int k;
  for (k = 0; k < n; k++) {
    c->done = k;
    if (pc == stop) break;
    if (kick) {
      kick = 0;
      if ((c->intr & c->inten) && stop == 1) {
        c->pc = pc;
        irq(c);
        pc = c->pc;
        L = lim(c);
      }
    }
    if (pc >= 0x40000000 && pc < 0x40070000) {
      c->pc = pc;
      c->insns++;
      u32 before = c->pc;
      int rr = rom(c);
      if (!rr) {
        c->pc = before;
        die("ROM %08x", pc, 0);
      }
      if (before == 0x4000bfdc && (c->intr & c->inten)) irq(c);
      pc = c->pc;
      L = lim(c);
      if (rr == 2) {
        k = n;
        break;
      }
      if (c->waiting) {
        k++;
        break;
      }
      continue;
    }
    u8 *p = rd[pc >> 12];
    if (!p) {
      if (pc >= 0x400a0000 && pc < 0x400c0000) {
      } else {
        c->pc = pc;
        die("fetch", 0, 0);
      }
    }
    u32 in;
    {
      u32 o = pc & 4095;
      if (p && o <= 4092) {
        memcpy(&in, p + o, 4);
      } else {
        in = r8(pc) | r8(pc + 1) << 8 | r8(pc + 2) << 16;
      }
    }
    u32 op0 = in & 15, t = in >> 4 & 15, s = in >> 8 & 15, r = in >> 12 & 15;
    u32 npc, next;
    if (op0 >= 8) { // narrow
      next = npc = pc + 2;
      switch (op0) {
      case 8:
        CK(s);
        CK(t);
        a(t) = r32(a(s) + 4 * r);
        break;
      case 9:
        CK(s);
        CK(t);
        w32(a(s) + 4 * r, a(t));
        break;
      case 10:
        CK(s);
        CK(t);
        CK(r);
        a(r) = a(s) + a(t);
        break;
      case 11:
        CK(s);
        CK(r);
        a(r) = a(s) + (t ? t : (u32)-1);
        break;
      case 12:
        CK(s);
        if (t < 8) {
          u32 v = (t & 7) << 4 | r;
          a(s) = v >= 96 ? v - 128 : v;
        } else {
          u32 im = ((t & 3) << 4 | r);
          if ((a(s) == 0) != !!(t & 4)) npc = pc + 4 + im;
        }
        break;
      case 13:
        if (r == 0) {
          CK(s);
          CK(t);
          a(t) = a(s);
        } else if (r == 15) {
          switch (t) {
          case 0: npc = a(0); break;
          case 1: goto retw;
          case 2: goto brk;
          case 3: break;
          default: goto ill;
          }
        } else
          goto ill;
        break;
      default: goto ill;
      }
    } else {
      next = npc = pc + 3;
      u32 op1 = in >> 16 & 15, op2 = in >> 20 & 15, i8 = in >> 16 & 255;
      switch (op0) {
      case 0:
        switch (op1) {
        case 0:
          switch (op2) {
          case 0:
            switch (r) {
            case 0: {
              u32 m = t >> 2, nn = t & 3;
              if (m == 2) {
                if (nn == 0)
                  npc = a(0);
                else if (nn == 1)
                  goto retw;
                else if (nn == 2) {
                  CK(s);
                  npc = a(s);
                } else
                  goto ill;
              } else if (m == 3) {
                CK(s);
                if (nn) {
                  CK(nn * 4);
                  u32 tg = a(s);
                  c->ps = (c->ps & ~(3u << 16)) | nn << 16;
                  a(nn * 4) = nn << 30 | (next & 0x3fffffff);
                  npc = tg;
                } else {
                  u32 tg = a(s);
                  a(0) = next;
                  npc = tg;
                }
              } else
                goto ill;
            } break;
            case 1:
              CK(s);
              CK(t);
              {
                u32 w = (c->ws | c->ws << 16) >> (c->wb + 13) & 7;
                if (w == 0 && (c->ps & WOE)) {
                  c->pc = pc;
                  exception(c, 5, pc);
                  pc = c->pc;
                  L = lim(c);
                  continue;
                }
                a(t) = a(s);
              }
              break;
            case 2: break;
            case 3:
              if (t == 0) {
                if (s == 0) {
                  npc = c->epc[1];
                  c->ps &= ~EXCM;
                } else if (s == 2)
                  npc = c->depc;
                else if (s == 4 || s == 5) {
                  u32 owb = c->ps >> 8 & 15;
                  c->ps &= ~EXCM;
                  npc = c->epc[1];
                  if (s == 4)
                    c->ws &= ~(1u << c->wb);
                  else
                    c->ws |= 1u << c->wb;
                  c->wb = owb;
                } else
                  goto ill;
              } else if (t == 1) {
                c->ps = c->eps[s];
                npc = c->epc[s];
              } else
                goto ill;
              L = lim(c);
              pc = npc;
              c->pc = pc;
              if (c->intr & c->inten) {
                c->pc = pc;
                irq(c);
                pc = c->pc;
                L = lim(c);
              }
              continue;
            case 4: goto brk;
            case 5:
              if (s == 0) {
                c->pc = pc;
                exception(c, 1, pc);
                pc = c->pc;
                L = lim(c);
                continue;
              }
              break;
            case 6:
              CK(t);
              a(t) = c->ps;
              c->ps = (c->ps & ~15u) | s;
              L = lim(c);
              break;
            case 7:
              c->ps = (c->ps & ~15u) | s;
              c->pc = next;
              c->waiting = 1;
              irq(c);
              pc = c->pc;
              L = lim(c);
              if (c->waiting) {
                k++;
                goto out;
              }
              continue;
            case 8: {
              u32 v = c->br >> s & 15;
              c->br = (c->br & ~(1u << t)) | (u32)(v != 0) << t;
            } break;
            case 9: {
              u32 v = c->br >> s & 15;
              c->br = (c->br & ~(1u << t)) | (u32)(v == 15) << t;
            } break;
            default: goto ill;
            }
            break;
          case 1:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) & a(t);
            break;
          case 2:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) | a(t);
            break;
          case 3:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) ^ a(t);
            break;
          case 4:
            switch (r) {
            case 0:
              CK(s);
              c->sar = a(s) & 31;
              break;
            case 1:
              CK(s);
              c->sar = 32 - (a(s) & 31);
              break;
            case 2:
              CK(s);
              c->sar = (a(s) & 3) * 8;
              break;
            case 3:
              CK(s);
              c->sar = 32 - (a(s) & 3) * 8;
              break;
            case 4: c->sar = s | (t & 1) << 4; break;
            case 6:
              CK(s);
              CK(t);
              a(t) = 0;
              break;
            case 7: break;
            case 8:
              c->wb = (c->wb + (t >= 8 ? t - 16 : t)) & 15;
              L = lim(c);
              break;
            case 14: {
              CK(s);
              CK(t);
              i32 v = a(s);
              u32 x = v < 0 ? ~v : v;
              a(t) = x ? __builtin_clz(x) - 1 : 31;
            } break;
            case 15:
              CK(s);
              CK(t);
              a(t) = a(s) ? __builtin_clz(a(s)) : 32;
              break;
            default: goto ill;
            }
            break;
          case 5: break; // TLB
          case 6:
            CK(r);
            CK(t);
            if (s == 0)
              a(r) = -a(t);
            else if (s == 1)
              a(r) = (i32)a(t) < 0 ? -a(t) : a(t);
            else
              goto ill;
            break;
          case 8:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) + a(t);
            break;
          case 9:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 1) + a(t);
            break;
          case 10:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 2) + a(t);
            break;
          case 11:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 3) + a(t);
            break;
          case 12:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) - a(t);
            break;
          case 13:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 1) - a(t);
            break;
          case 14:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 2) - a(t);
            break;
          case 15:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) << 3) - a(t);
            break;
          default: goto ill;
          }
          break;
        case 1:
          switch (op2) {
          case 0:
          case 1: {
            CK(r);
            CK(s);
            u32 sa = 32 - ((op2 & 1) << 4 | t);
            a(r) = sa >= 32 ? 0 : a(s) << sa;
          } break;
          case 2:
          case 3:
            CK(r);
            CK(t);
            a(r) = (i32)a(t) >> ((op2 & 1) << 4 | s);
            break;
          case 4:
            CK(r);
            CK(t);
            a(r) = a(t) >> s;
            break;
          case 6: {
            CK(t);
            int sr = r << 4 | s;
            u32 o = rsr(c, sr, pc), v = a(t);
            a(t) = o;
            wsr(c, sr, v, pc);
            if (sr == 73 || sr == 72 || sr == 230) L = lim(c);
            if (sr == 230 || sr == 228 || sr == 226) {
              if (c->intr & c->inten) {
                c->pc = next;
                irq(c);
                pc = c->pc;
                L = lim(c);
                continue;
              }
            }
          } break;
          case 8: {
            CK(r);
            CK(s);
            CK(t);
            u64 v = (u64)a(s) << 32 | a(t);
            a(r) = c->sar >= 64 ? 0 : v >> c->sar;
          } break;
          case 9:
            CK(r);
            CK(t);
            a(r) = c->sar >= 32 ? 0 : a(t) >> c->sar;
            break;
          case 10: {
            CK(r);
            CK(s);
            u32 sh = 32 - c->sar;
            a(r) = sh >= 32 ? 0 : a(s) << sh;
          } break;
          case 11:
            CK(r);
            CK(t);
            a(r) = (i32)a(t) >> (c->sar >= 32 ? 31 : c->sar);
            break;
          case 12:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (a(s) & 0xffff) * (a(t) & 0xffff);
            break;
          case 13:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (i32)(int16_t)a(s) * (int16_t)a(t);
            break;
          default: goto ill;
          }
          break;
        case 2:
          switch (op2) {
          case 0:
          case 1:
          case 2:
          case 3:
          case 4: {
            u32 x = c->br >> s & 1, y = c->br >> t & 1,
                v = op2 == 0   ? x & y
                    : op2 == 1 ? x & !y
                    : op2 == 2 ? x | y
                    : op2 == 3 ? x | !y
                               : x ^ y;
            c->br = (c->br & ~(1u << r)) | v << r;
          } break;
          case 8:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) * a(t);
            break;
          case 10:
            CK(r);
            CK(s);
            CK(t);
            a(r) = ((u64)a(s) * a(t)) >> 32;
            break;
          case 11:
            CK(r);
            CK(s);
            CK(t);
            a(r) = ((int64_t)(i32)a(s) * (i32)a(t)) >> 32;
            break;
          case 12:
          case 13:
          case 14:
          case 15: {
            CK(r);
            CK(s);
            CK(t);
            if (!a(t)) {
              c->pc = pc;
              exception(c, 6, pc);
              pc = c->pc;
              L = lim(c);
              continue;
            }
            if (op2 == 12)
              a(r) = a(s) / a(t);
            else if (op2 == 14)
              a(r) = a(s) % a(t);
            else {
              int64_t x = (i32)a(s), y = (i32)a(t);
              a(r) = op2 == 13 ? (u32)(x / y) : (u32)(x % y);
            }
          } break;
          default: goto ill;
          }
          break;
        case 3:
          switch (op2) {
          case 0:
            CK(t);
            a(t) = rsr(c, r << 4 | s, pc);
            break;
          case 1: {
            CK(t);
            int sr = r << 4 | s;
            wsr(c, sr, a(t), pc);
            if (sr == 73 || sr == 72 || sr == 230) L = lim(c);
            if (sr == 230 || sr == 228 || sr == 226) {
              if (c->intr & c->inten) {
                c->pc = next;
                irq(c);
                pc = c->pc;
                L = lim(c);
                continue;
              }
            }
          } break;
          case 2: {
            CK(r);
            CK(s);
            int b = t + 7;
            a(r) = (i32)(a(s) << (31 - b)) >> (31 - b);
          } break;
          case 3: {
            CK(r);
            CK(s);
            i32 v = a(s), h = (1 << (t + 7)) - 1, l = -(1 << (t + 7));
            a(r) = v > h ? h : v < l ? l : v;
          } break;
          case 4:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (i32)a(s) < (i32)a(t) ? a(s) : a(t);
            break;
          case 5:
            CK(r);
            CK(s);
            CK(t);
            a(r) = (i32)a(s) > (i32)a(t) ? a(s) : a(t);
            break;
          case 6:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) < a(t) ? a(s) : a(t);
            break;
          case 7:
            CK(r);
            CK(s);
            CK(t);
            a(r) = a(s) > a(t) ? a(s) : a(t);
            break;
          case 8:
            CK(r);
            CK(s);
            CK(t);
            if (!a(t)) a(r) = a(s);
            break;
          case 9:
            CK(r);
            CK(s);
            CK(t);
            if (a(t)) a(r) = a(s);
            break;
          case 10:
            CK(r);
            CK(s);
            CK(t);
            if ((i32)a(t) < 0) a(r) = a(s);
            break;
          case 11:
            CK(r);
            CK(s);
            CK(t);
            if ((i32)a(t) >= 0) a(r) = a(s);
            break;
          case 12:
            CK(r);
            CK(s);
            if (!(c->br >> t & 1)) a(r) = a(s);
            break;
          case 13:
            CK(r);
            CK(s);
            if (c->br >> t & 1) a(r) = a(s);
            break;
          case 14: {
            CK(r);
            int ur = s << 4 | t;
            a(r) = ur == 231 ? c->tp : ur == 232 ? c->fcr : ur == 233 ? c->fsr : 0;
          } break;
          case 15: {
            CK(t);
            int ur = r << 4 | s;
            if (ur == 231)
              c->tp = a(t);
            else if (ur == 232)
              c->fcr = a(t);
            else if (ur == 233)
              c->fsr = a(t);
          } break;
          default: goto ill;
          }
          break;
        case 4:
        case 5:
          CK(r);
          CK(t);
          a(r) = a(t) >> ((op1 & 1) << 4 | s) & ((2u << op2) - 1);
          break;
        case 8: {
          if (!(c->cpenable & 1)) goto cp;
          CK(s);
          CK(t);
          u32 ad = a(s) + a(t);
          if (op2 == 0 || op2 == 1) {
            u32 v = r32(ad);
            memcpy(&c->f[r], &v, 4);
          } else if (op2 == 4 || op2 == 5) {
            u32 v;
            memcpy(&v, &c->f[r], 4);
            w32(ad, v);
          } else
            goto ill;
          if (op2 & 1) a(s) = ad;
        } break;
        case 9:
          CK(s);
          CK(t);
          if (op2 == 0)
            a(t) = r32(a(s) + (r << 2) - 64);
          else if (op2 == 4)
            w32(a(s) + (r << 2) - 64, a(t));
          else
            goto ill;
          break;
        case 10: {
          if (!(c->cpenable & 1)) goto cp;
          float *f = c->f;
          switch (op2) {
          case 0: f[r] = f[s] + f[t]; break;
          case 1: f[r] = f[s] - f[t]; break;
          case 2: f[r] = f[s] * f[t]; break;
          case 4: f[r] = fmaf(f[s], f[t], f[r]); break;
          case 5: f[r] = fmaf(-f[s], f[t], f[r]); break;
          case 6:
          case 7: break;
          case 8:
          case 9:
          case 10:
          case 11: {
            CK(r);
            float v = ldexpf(f[s], t);
            v = op2 == 8 ? rintf(v) : op2 == 9 ? truncf(v) : op2 == 10 ? floorf(v) : ceilf(v);
            a(r) = isnan(v)            ? 0x7fffffff
                   : v >= 2147483648.f ? 0x7fffffff
                   : v < -2147483648.f ? 0x80000000u
                                       : (u32)(i32)v;
          } break;
          case 12:
            CK(s);
            f[r] = ldexpf((float)(i32)a(s), -(int)t);
            break;
          case 13:
            CK(s);
            f[r] = ldexpf((float)a(s), -(int)t);
            break;
          case 14: {
            CK(r);
            float v = truncf(ldexpf(f[s], t));
            a(r) = isnan(v) || v >= 4294967296.f ? 0xffffffffu : v < 0 ? (u32)(i32)v : (u32)v;
          } break;
          case 15:
            switch (t) {
            case 0: f[r] = f[s]; break;
            case 1: f[r] = fabsf(f[s]); break;
            case 3: {
              static const float k[16] = {0, 1, 2, .5f};
              f[r] = k[s];
            } break;
            case 4: {
              CK(r);
              u32 v;
              memcpy(&v, &f[s], 4);
              a(r) = v;
            } break;
            case 5: {
              CK(s);
              u32 v = a(s);
              memcpy(&f[r], &v, 4);
            } break;
            case 6: f[r] = -f[s]; break;
            default:
              if (!fpdiv(c, t, r, s)) { goto ill; }
            }
            break;
          default: goto ill;
          }
        } break;
        case 11: {
          if (!(c->cpenable & 1)) goto cp;
          float *f = c->f;
          float x = f[s], y = f[t];
          int un = isnan(x) || isnan(y), v;
          switch (op2) {
          case 1: v = un; break;
          case 2: v = !un && x == y; break;
          case 3: v = un || x == y; break;
          case 4: v = !un && x < y; break;
          case 5: v = un || x < y; break;
          case 6: v = !un && x <= y; break;
          case 7: v = un || x <= y; break;
          case 8:
            CK(t);
            if (!a(t)) f[r] = f[s];
            goto fpd;
          case 9:
            CK(t);
            if (a(t)) f[r] = f[s];
            goto fpd;
          case 10:
            CK(t);
            if ((i32)a(t) < 0) f[r] = f[s];
            goto fpd;
          case 11:
            CK(t);
            if ((i32)a(t) >= 0) f[r] = f[s];
            goto fpd;
          case 12:
            if (!(c->br >> t & 1)) f[r] = f[s];
            goto fpd;
          case 13:
            if (c->br >> t & 1) f[r] = f[s];
            goto fpd;
          default: goto ill;
          }
          c->br = (c->br & ~(1u << r)) | (u32)v << r;
        fpd:;
        } break;
        default: goto ill;
        }
        break;
      case 1: {
        CK(t);
        u32 ad = ((pc + 3) & ~3u) + (0xfffc0000u | (in >> 8 & 0xffff) << 2);
        a(t) = r32(ad);
      } break;
      case 2:
        switch (r) {
        case 0:
          CK(s);
          CK(t);
          a(t) = r8(a(s) + i8);
          break;
        case 1:
          CK(s);
          CK(t);
          a(t) = r16(a(s) + 2 * i8);
          break;
        case 2:
        case 11:
          CK(s);
          CK(t);
          a(t) = r32(a(s) + 4 * i8);
          break;
        case 4:
          CK(s);
          CK(t);
          w8(a(s) + i8, a(t));
          break;
        case 5:
          CK(s);
          CK(t);
          w16(a(s) + 2 * i8, a(t));
          break;
        case 6:
        case 15:
          CK(s);
          CK(t);
          w32(a(s) + 4 * i8, a(t));
          break;
        case 7: break;
        case 9:
          CK(s);
          CK(t);
          a(t) = (i32)(int16_t)r16(a(s) + 2 * i8);
          break;
        case 10: {
          CK(t);
          u32 v = s << 8 | i8;
          a(t) = v & 0x800 ? v | 0xfffff000 : v;
        } break;
        case 12:
          CK(s);
          CK(t);
          a(t) = a(s) + (i32)(int8_t)i8;
          break;
        case 13:
          CK(s);
          CK(t);
          a(t) = a(s) + ((i32)(int8_t)i8) * 256;
          break;
        case 14: {
          CK(s);
          CK(t);
          u32 ad = a(s) + 4 * i8, v = r32(ad);
          if (v == c->scompare) w32(ad, a(t));
          a(t) = v;
        } break;
        default: goto ill;
        }
        break;
      case 3: {
        if (!(c->cpenable & 1)) goto cp;
        CK(s);
        u32 ad = a(s) + 4 * i8;
        switch (r) {
        case 0:
        case 8: {
          u32 v = r32(ad);
          memcpy(&c->f[t], &v, 4);
        } break;
        case 4:
        case 12: {
          u32 v;
          memcpy(&v, &c->f[t], 4);
          w32(ad, v);
        } break;
        default: goto ill;
        }
        if (r & 8) a(s) = ad;
      } break;
      case 4: goto mac;
      case 5: {
        u32 nn = t & 3;
        i32 off = (i32)(in << 8) >> 14;
        u32 tg = (pc & ~3u) + (off << 2) + 4;
        if (nn) {
          CK(nn * 4);
          c->ps = (c->ps & ~(3u << 16)) | nn << 16;
          a(nn * 4) = nn << 30 | (next & 0x3fffffff);
        } else
          a(0) = next;
        npc = tg;
      } break;
      case 6: {
        u32 nn = t & 3, m = t >> 2;
        if (nn == 0) {
          npc = pc + 4 + ((i32)(in << 8) >> 14);
        } else if (nn == 1) {
          CK(s);
          i32 off = (i32)(in << 8) >> 20;
          u32 v = a(s);
          int tk = m == 0 ? v == 0 : m == 1 ? v != 0 : m == 2 ? (i32)v < 0 : (i32)v >= 0;
          if (tk) npc = pc + 4 + off;
        } else if (nn == 2) {
          CK(s);
          i32 v = a(s);
          int tk = m == 0 ? v == b4c[r] : m == 1 ? v != b4c[r] : m == 2 ? v < b4c[r] : v >= b4c[r];
          if (tk) npc = pc + 4 + (i32)(int8_t)i8;
        } else if (m == 0) {
          u32 ci = c->ps >> 16 & 3;
          if ((c->ps & (WOE | EXCM)) != WOE) {
            c->pc = pc;
            die("entry with WOE off", 0, 0);
          }
          CK(ci * 4);
          u32 v = a(s) - ((in >> 12 & 0xfff) << 3);
          a(ci * 4 + (s & 3)) = v;
          c->wb = (c->wb + ci) & 15;
          c->ws |= 1u << c->wb;
          L = lim(c);
        } else if (m == 1) {
          if (r == 0 || r == 1) {
            if ((c->br >> s & 1) == r) npc = pc + 4 + (i32)(int8_t)i8;
          } else if (r >= 8 && r <= 10) {
            CK(s);
            c->lbeg = next;
            c->lend = pc + 4 + i8;
            c->lcount = a(s) - 1;
            if ((r == 9 && a(s) == 0) || (r == 10 && (i32)a(s) <= 0)) {
              npc = c->lend;
              c->lcount = 0;
            }
            pc = npc;
            c->insns++;
            continue;
          } else
            goto ill;
        } else {
          CK(s);
          u32 v = a(s);
          if (m == 2 ? v < b4cu[r] : v >= b4cu[r]) npc = pc + 4 + (i32)(int8_t)i8;
        }
      } break;
      case 7: {
        CK(s);
        u32 x = a(s);
        int tk;
        if ((r & 7) >= 6) {
          u32 b = (r & 1) << 4 | t;
          tk = (x >> b & 1) == (r >> 3);
        } else {
          CK(t);
          u32 y = a(t);
          switch (r & 7) {
          case 0: tk = (x & y) != 0; break;
          case 1: tk = x != y; break;
          case 2: tk = (i32)x >= (i32)y; break;
          case 3: tk = x >= y; break;
          case 4: tk = (~x & y) != 0; break;
          default: tk = x >> (y & 31) & 1;
          }
          if ((r & 8) == 0) tk = !tk;
        }
        if (tk) npc = pc + 4 + (i32)(int8_t)i8;
      } break;
      }
    }
    c->insns++;
    if (npc == next && npc == c->lend && c->lcount && !(c->ps & EXCM)) {
      c->lcount--;
      npc = c->lbeg;
    }
    pc = npc;
    continue;
  retw:
    {
      u32 nn = a(0) >> 30, owb = c->wb;
      npc = (pc & 0xc0000000) | (a(0) & 0x3fffffff);
      c->wb = (c->wb - nn) & 15;
      if (nn == 0) {
        c->pc = pc;
        die("retw 0", 0, 0);
      }
      if (c->ws >> c->wb & 1) {
        c->ws &= ~(1u << owb);
        pc = npc;
      } else {
        c->ps = (c->ps & ~0xf00u) | owb << 8 | EXCM;
        c->epc[1] = pc;
        pc = c->vecbase + (nn == 1 ? 0x40 : nn == 2 ? 0xc0 : 0x140);
      }
      L = lim(c);
      c->insns++;
      continue;
    }
  ovf:
    {
      u32 w = (c->ws | c->ws << 16) >> c->wb;
      int m = (w & 2) ? 1 : (w & 4) ? 2 : 3;
      c->ps = (c->ps & ~0xf00u) | c->wb << 8 | EXCM;
      c->epc[1] = pc;
      c->wb = (c->wb + m) & 15;
      w = (c->ws | c->ws << 16) >> c->wb;
      pc = c->vecbase + ((w & 2) ? 0 : (w & 4) ? 0x80 : 0x100);
      L = lim(c);
      continue;
    }
  mac:
    {
      u32 op1 = in >> 16 & 15, op2 = in >> 20 & 15; // MAC16
      u32 x, y;
      i32 ldinc = 0;
      int wr_m = -1;
      u32 ldv = 0;
      int half = op1 & 3, fn = op1 >> 2; // fn: 0 umul,1 mul,2 mula,3 muls
      switch (op2) {
      case 0:
      case 1: {
        CK(s);
        x = c->m[r >> 2 & 1];
        y = c->m[2 + (t >> 2 & 1)];
        ldinc = op2 == 0 ? 4 : -4;
        ldv = r32(a(s) + ldinc);
        a(s) += ldinc;
        wr_m = r & 3;
        fn = 2;
      } break;
      case 4:
      case 5:
        CK(s);
        CK(t);
        x = a(s);
        y = a(t);
        ldinc = op2 == 4 ? 4 : -4;
        ldv = r32(a(s) + ldinc);
        a(s) += ldinc;
        wr_m = r & 3;
        fn = 2;
        c->pc = pc;
        die("mac16 form %u", op2, 0);
        break;
      case 2:
        x = c->m[r >> 2 & 1];
        y = c->m[2 + (t >> 2 & 1)];
        break;
      case 3:
        CK(s);
        x = a(s);
        y = c->m[2 + (t >> 2 & 1)];
        break;
      case 6:
        CK(t);
        x = c->m[r >> 2 & 1];
        y = a(t);
        break;
      case 7:
        CK(s);
        CK(t);
        x = a(s);
        y = a(t);
        break;
      case 8:
      case 9:
        CK(s);
        ldinc = op2 == 8 ? 4 : -4;
        a(s) += ldinc;
        c->m[r & 3] = r32(a(s));
        c->insns++;
        pc = next;
        continue;
      default: goto ill;
      }
      x = half & 1 ? x >> 16 : x & 0xffff;
      y = half & 2 ? y >> 16 : y & 0xffff;
      int64_t pr = fn == 0 ? (int64_t)(u64)(x * y) : (int64_t)((i32)(int16_t)x * (i32)(int16_t)y);
      int64_t acc = (int64_t)((u64)(int64_t)(int8_t)c->acchi << 32 | c->acclo);
      acc = fn < 2 ? pr : fn == 2 ? acc + pr : acc - pr;
      c->acclo = acc;
      c->acchi = (acc >> 32) & 0xff;
      if (wr_m >= 0) c->m[wr_m] = ldv;
      c->insns++;
      if (next == c->lend && c->lcount && !(c->ps & EXCM)) {
        c->lcount--;
        next = c->lbeg;
      }
      pc = next;
      continue;
    }
  cp:
    c->pc = pc;
    exception(c, 32, pc);
    pc = c->pc;
    L = lim(c);
    continue;
  brk:
    c->pc = pc;
    die("break instruction %06x", in & 0xffffff, 0);
  ill:
    c->pc = pc;
    die("illegal instruction %06x", in & 0xffffff, 0);
  }
out:
  if (c->pc != pc && !c->waiting) c->pc = pc;
  if (c->waiting == 0) c->pc = pc;
  c->done = 0;
  return k;
}

// Loads the bootloader's segments as the ROM does, and leaves the first core at its entry.
static void power_on(void) {
  u8 *image = flash + 0x1000;
  u32 entry, at = 24;
  if (image[0] != 0xe9) {
    fprintf(stderr, "[chip] no bootloader at 0x1000\n");
    exit(BROKEN);
  }
  memcpy(&entry, image + 4, 4);
  for (int i = 0; i < image[1]; i++) {
    u32 address, length;
    memcpy(&address, image + at, 4);
    memcpy(&length, image + at + 4, 4);
    at += 8;
    for (u32 k = 0; k < length; k++) w8(address + k, image[at + k]);
    at += length;
  }
  for (int i = 0; i < 2; i++) {
    Cpu *c = &cpu[i];
    u32 stack = i ? 0x3ffe7e30 : 0x3ffe3f20;
    c->id = i;
    c->ws = 1;
    c->ps = WOE | UM | 2u << 16;
    c->prid = i ? 0xabab : 0xcdcd;
    c->vecbase = 0x40000000;
    *A(c, 1) = stack;
    *A(c, 8) = 2u << 30 | 0x1000;
    w32(stack - 12, stack + 64);
  } // as if called by call8, with a frame above
  cpu[0].pc = entry;
  cpu[0].running = 1;
  u8 mac[6] = {0x24, 0x0a, 0xc4, 0x00, 0x01, 0x10};
  IO(0x3ff5a004) = mac[5] | mac[4] << 8 | mac[3] << 16 | (u32)mac[2] << 24;
  IO(0x3ff5a008) = mac[1] | mac[0] << 8 | (u32)crc8(mac, 6) << 16;
  IO(0x3ff5a00c) = 1u << 15;   // chip revision 1
  IO(0x3ff480b0) = 0x00280028; // crystal of 40 MHz
  mhz = 80;
}
int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: esp32 FLASH [CUT]: power goes in the middle of flash operation number CUT\n");
    return 2;
  }
  int file = open(argv[1], O_RDWR);
  cut = argc > 2 ? atol(argv[2]) : 0;
  flash = file < 0 ? MAP_FAILED : mmap(0, FLASH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (flash == MAP_FAILED || lseek(file, 0, SEEK_END) != FLASH_SIZE) {
    perror(argv[1]);
    return 2;
  }
  map(0x3ffae000, 0x52000, dram, 1);
  map(0x40070000, 0x30000, iram, 1);
  map(0x400c0000, 0x2000, rtcf, 1);
  map(0x3ff80000, 0x2000, rtcf, 1);
  map(0x50000000, 0x2000, rtcs, 1);
  map(0x3ff90000, 0x10000, romd, 1);
  for (int i = 0; i < 384; i++) mmu[0][i] = mmu[1][i] = 0x100;
  cur = &cpu[0];
  rom_init();
  power_on();
  static const int bits[3] = {6, 15, 16};
  u64 polled = 0, slept = 0, since = 0;
  for (;;) {
    for (int i = 0; i < 2; i++) {
      Cpu *c = &cpu[i];
      if (!c->running) continue;
      cur = c;
      irq(c);
      if (!c->waiting) run(c, SLICE, 1);
      u32 old = c->ccbase;
      c->ccbase += SLICE;
      for (int t = 0; t < 3; t++)
        if (c->ccomp[t] - old - 1 < SLICE) c->intr |= 1u << bits[t];
    }
    cycles += SLICE;
    update();
    if (cycles - polled > 50000) {
      polled = cycles;
      txflush();
      pollin(0);
    }
    if (cpu[0].waiting && (!cpu[1].running || cpu[1].waiting)) { // both idle: go on to the next timer
      txflush();
      u32 next = rxh != rxt ? CHARACTER : mhz * 1000;
      for (int i = 0; i < 2; i++)
        for (int t = 0; cpu[i].running && t < 3; t++) {
          u32 left = cpu[i].ccomp[t] - cpu[i].ccbase;
          if (left && left < next && cpu[i].inten >> bits[t] & 1) next = left;
        }
      if (next > SLICE) {
        u32 skip = next - SLICE;
        cycles += skip;
        for (int i = 0; i < 2; i++) cpu[i].ccbase += skip;
        if (rxh == rxt && (slept += skip) > mhz * 1000) {
          slept = 0;
          pollin(1);
        }
      }
    }
    if (eof && rxh == rxt) {
      if (!since) since = cycles;
      if (cycles - since > (u64)mhz * 1000000) {
        txflush();
        return 0;
      }
    }
  }
}
