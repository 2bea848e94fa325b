// PNG files with 256 colours: those of pages are few, and the files become a third as large.
import { deflateSync, crc32, inflateSync } from 'node:zlib'

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex')

function chunk(type, data) {
  const all = Buffer.concat([Buffer.alloc(4), Buffer.from(type, 'latin1'), data, Buffer.alloc(4)])
  all.writeUInt32BE(data.length, 0)
  all.writeUInt32BE(crc32(all.subarray(4, all.length - 4)), all.length - 4)
  return all
}

/** The pixels of a file as Chromium writes it: eight bits of red, green and blue, not interlaced. */
function pixels(file) {
  const data = []
  let [at, width, height] = [8, 0, 0]
  while (at < file.length) {
    const [length, type] = [file.readUInt32BE(at), file.toString('latin1', at + 4, at + 8)]
    const body = file.subarray(at + 8, at + 8 + length)
    if (type === 'IHDR') {
      [width, height] = [body.readUInt32BE(0), body.readUInt32BE(4)]
      if (body[8] !== 8 || body[9] !== 2 || body[12] !== 0) throw new Error('this PNG is not 8 bits of RGB')
    } else if (type === 'IDAT') data.push(body)
    at += length + 12
  }
  const [raw, stride] = [inflateSync(Buffer.concat(data)), width * 3]
  const out = Buffer.alloc(stride * height)
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)]
    for (let x = 0; x < stride; x += 1) {
      const to = y * stride + x
      const left = x >= 3 ? out[to - 3] : 0
      const up = y > 0 ? out[to - stride] : 0
      const corner = x >= 3 && y > 0 ? out[to - stride - 3] : 0
      out[to] = raw[y * (stride + 1) + 1 + x] + [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter]
    }
  }
  return { width, height, out }
}

function paeth(left, up, corner) {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)]
  return a <= b && a <= c ? left : b <= c ? up : corner
}

const parts = (colour) => [colour >> 16, colour >> 8 & 255, colour & 255]
const distance = (one, other) => one.reduce((sum, part, n) => sum + (part - other[n]) ** 2, 0)

/** The colours that a picture has most, and those of little signs, such as a state's dot, that are like none of these. */
function paletteOf(counts) {
  const all = [...counts].sort((a, b) => b[1] - a[1]).map(([colour, count]) => ({ own: parts(colour), count }))
  const palette = all.slice(0, 224).map(({ own }) => own)
  for (const one of all) one.least = Math.min(...palette.map((other) => distance(one.own, other)))
  while (palette.length < Math.min(256, all.length)) {
    const next = all.reduce((best, one) => (one.least * Math.sqrt(one.count) > best.least * Math.sqrt(best.count) ? one : best))
    palette.push(next.own)
    for (const one of all) one.least = Math.min(one.least, distance(one.own, next.own))
  }
  return palette
}

/** The same picture with 256 colours; the others become the nearest of them. */
export function withPalette(file) {
  const { width, height, out } = pixels(file)
  const counts = new Map()
  for (let at = 0; at < out.length; at += 3) {
    const colour = out.readUIntBE(at, 3)
    counts.set(colour, (counts.get(colour) ?? 0) + 1)
  }
  const known = paletteOf(counts)
  const places = new Map()
  for (const colour of counts.keys()) {
    const own = parts(colour)
    let [best, least] = [0, Infinity]
    known.forEach((other, place) => {
      const far = distance(own, other)
      if (far < least) [best, least] = [place, far]
    })
    places.set(colour, best)
  }
  const rows = Buffer.alloc((width + 1) * height)
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows[y * (width + 1) + 1 + x] = places.get(out.readUIntBE((y * width + x) * 3, 3))
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head.set([8, 3, 0, 0, 0], 8)
  return Buffer.concat([SIGNATURE, chunk('IHDR', head), chunk('PLTE', Buffer.from(known.flat())), chunk('IDAT', deflateSync(rows, { level: 9 })), chunk('IEND', Buffer.alloc(0))])
}
