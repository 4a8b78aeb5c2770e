-- Shared by all scripts. Times are the server's, in ms.
-- NOTE: key names are those of core/queue_keys.py, where they are described.
local PREFIX, GROUP, CONSUMER = '{dbx}', 'workers', 'worker'
-- KEEP_S: a control plane that was away for less still sees how its jobs ended.
local EVENTS_MAX, FEED_MAX, DEAD_MAX, KEEP_S = '10000', '100', '1000', '2592000'
local PROGRESS_FROM, SWEEP = 1000, 100
local PULSE, CALM, GAP_MS = PREFIX .. ':pulse', PREFIX .. ':calm', 5000
local DELAYED, DEAD, FEED, CONTROL =
  PREFIX .. ':delayed', PREFIX .. ':dead', PREFIX .. ':feed', PREFIX .. ':control'

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lane_key(lane) return PREFIX .. ':q:' .. lane end
local function job_key(id) return PREFIX .. ':job:' .. id end
local function events_key(id) return PREFIX .. ':ev:' .. id end

-- The value that follows `name` in a flat reply such as XINFO's.
local function field(flat, name)
  for i = 1, #flat, 2 do
    if flat[i] == name then return flat[i + 1] end
  end
end

-- Progress is dense and soon worth nothing, while a reader that was away must still find every clip.
-- So from PROGRESS_FROM entries on, the oldest progress goes, but for what may not be read yet.
local function sweep(id)
  local key = events_key(id)
  if redis.call('XLEN', key) <= PROGRESS_FROM then return end
  local swept = redis.call('HGET', job_key(id), 'swept')
  local found = redis.call('XRANGE', key, swept and '(' .. swept or '-', '+', 'COUNT', 2 * SWEEP)
  if #found < 2 * SWEEP then return end
  local gone = {}
  for i = 1, SWEEP do
    if found[i][2][4] == 'progress' then gone[#gone + 1] = found[i][1] end
  end
  if #gone > 0 then redis.call('XDEL', key, unpack(gone)) end
  redis.call('HSET', job_key(id), 'swept', found[SWEEP][1])
end

-- Append an event to the job's stream and, unless it is progress, ring with its type in the feed.
-- Returns its id in the job's stream.
local function tell(id, kind, body)
  local seq, at = redis.call('HINCRBY', job_key(id), 'seq', 1), now()
  local entry = redis.call('XADD', events_key(id), 'MAXLEN', '~', EVENTS_MAX, '*',
    'job', id, 'type', kind, 'seq', seq, 'at', at, 'body', body)
  if kind == 'progress' then
    sweep(id)
  else
    redis.call('XADD', FEED, 'MAXLEN', '~', FEED_MAX, '*',
      'job', id, 'type', kind)
  end
  return entry
end

-- The job's entry leaves its lane, so XLEN is what waits and what runs.
local function drop(lane, entry)
  if entry ~= '' then
    redis.call('XACK', lane_key(lane), GROUP, entry)
    redis.call('XDEL', lane_key(lane), entry)
  end
end

-- The job ends: its terminal event, and from now on its keys have a TTL.
local function close(id, status, body)
  redis.call('HSET', job_key(id), 'status', status, 'finished_at', now(), 'owner', '', 'entry', '')
  tell(id, status, body)
  redis.call('EXPIRE', job_key(id), KEEP_S)
  redis.call('EXPIRE', events_key(id), KEEP_S)
end

-- Too many workers died on it: nobody shall try again.
local function bury(id, crashes, reason)
  redis.call('XADD', DEAD, 'MAXLEN', '~', DEAD_MAX, '*', 'job', id, 'reason', reason)
  local message = 'The worker was lost ' .. crashes .. ' times while it ran this job: ' .. reason
  close(id, 'failed', cjson.encode({code = 'worker_lost', message = message, retryable = true}))
end

-- Back to the end of its lane. The fence moves on, so the last owner can't touch it any more.
local function requeue(id, lane, reason)
  redis.call('HINCRBY', job_key(id), 'fence', 1)
  local entry = redis.call('XADD', lane_key(lane), '*', 'job', id)
  redis.call('HSET', job_key(id), 'status', 'queued', 'owner', '', 'entry', entry)
  tell(id, 'requeued', cjson.encode({reason = reason}))
end

-- Idle times are wall clock and go on while nobody can reach the server, so an outage expires every
-- lease. After one, owners get a lease to beat again before anything is taken from them. An outage
-- is a restart, or that nobody asked for long: idle workers ask every 2 s, so a server that was
-- stopped, a machine that slept or a network that was cut shows as a gap.
local function may_reclaim(lease_ms)
  local uptime_s = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  local asked = tonumber(redis.call('GET', PULSE) or now())
  if now() - asked > math.max(lease_ms / 2, GAP_MS) then
    redis.call('SET', CALM, '1', 'PX', lease_ms + 1000)
  end
  redis.call('SET', PULSE, now())
  return uptime_s * 1000 > lease_ms + 1000 and redis.call('EXISTS', CALM) == 0
end
