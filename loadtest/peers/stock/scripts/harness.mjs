// What the scripts of clients in JavaScript share; as harness.py has it.
export const SCENARIOS = ['plain', 'stream', 'tools', 'schema', 'embeddings', 'unknown', 'hang-up', 'restart', 'oversize', 'limited']
export const QUESTION = 'What is the capital of France?'
// Nobody has asked it: an answer from the cache takes no tokens of a key.
export const unheard = () => `${QUESTION} (${Math.random()})`
export const ASKED = [{ role: 'user', content: QUESTION }]
export const CITY = {
  type: 'object', properties: { city: { type: 'string', enum: ['Lima', 'Paris'] } }, required: ['city'],
  additionalProperties: false,
}
export const TOO_LONG = 'and so on '.repeat(20000)
export const WORDS = Array.from({ length: 120 }, (_, number) => `word${number}`).join(' ')
const env = process.env
export const mesh = {
  address: env.CHOIR_ADDRESS ?? 'http://127.0.0.1:11435', control: env.CHOIR_CONTROL, model: env.CHOIR_MODEL ?? 'choir-qwen',
  ensemble: env.CHOIR_ENSEMBLE ?? 'choir/majority', caller: env.CHOIR_CALLER ?? 'caller', slow: env.CHOIR_SLOW ?? 'slow', limitedKey: env.CHOIR_LIMITED_KEY ?? '',
}

export const pause = ms => new Promise(done => setTimeout(done, ms))
export function check (holds, ...told) { if (!holds) throw new Error(`not so: ${told.map(x => JSON.stringify(x)).join(' ')}`) }

async function figure (name) {
  const text = await (await fetch(`${mesh.address}/metrics`)).text()
  return Number(text.split('\n').find(line => line.startsWith(`${name} `)).split(' ')[1])
}

async function until (limitMs, holds) {
  const end = Date.now() + limitMs
  while (!await holds()) { check(Date.now() < end, 'the work of a client that had gone went on'); await pause(50) }
}

// A client hangs up in `action`; its work has to end.
export async function left (action) {
  const before = await figure('choir_gateway_given_up_total')
  await action()
  await until(60000, async () => await figure('choir_gateway_given_up_total') > before)
  await until(60000, async () => await figure('choir_busy') === 0)
}

export async function restart () { await fetch(`${mesh.control}/restart`, { method: 'POST' }) }

export async function mustFail (ask, ...said) {
  try { await ask() } catch (error) {
    const text = `${error.name}: ${error.message} ${error.status_code ?? error.status ?? ''}`
    check(said.every(word => text.includes(word)), text)
    return text.slice(0, 160)
  }
  throw new Error('it was not refused')
}

export async function askedAgain (ask) {
  const end = Date.now() + 180000
  for (;;) { try { return await ask() } catch (error) { if (Date.now() > end) throw error; await pause(200) } }
}

// A stream whose gateway is killed after its third piece.
export async function cut (pieces) {
  let count = 0
  try {
    for await (const _ of pieces) { if (++count === 3) await restart() }
  } catch (error) { return error.name }
  return `ended without an error after ${count - 3} more`
}

export async function run (client, version, scenarios) {
  const chosen = process.argv.slice(2)
  for (const name of chosen.length ? chosen : SCENARIOS) {
    const began = Date.now()
    let outcome = 'ok', detail = ''
    try {
      if (name in scenarios) detail = (await scenarios[name]()) ?? ''
      else { outcome = 'not offered'; detail = 'the client has nothing for it' }
    } catch (error) {
      outcome = 'failed'; detail = String(error.message ?? error); console.error(error)
    }
    const seconds = (Date.now() - began) / 1000
    console.log(JSON.stringify({ client, version, scenario: name, outcome, seconds, detail: String(detail).slice(0, 300) }))
  }
}
