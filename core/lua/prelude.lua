-- Shared by all scripts. Times are the server's, in ms.
-- NOTE: key names are those of core/queue_keys.py, where they are described.
local PREFIX, GROUP, CONSUMER = '{dbx}', 'workers', 'worker'
local EVENTS_MAX, FEED_MAX, DEAD_MAX, KEEP_S = '1000', '100', '1000', '86400'
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

-- Append an event to the job's stream and, unless it is progress, ring with its type in the feed.
-- Returns its id in the job's stream.
local function tell(id, kind, body)
  local seq, at = redis.call('HINCRBY', job_key(id), 'seq', 1), now()
  local entry = redis.call('XADD', events_key(id), 'MAXLEN', '~', EVENTS_MAX, '*',
    'job', id, 'type', kind, 'seq', seq, 'at', at, 'body', body)
  if kind ~= 'progress' then
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

-- Idle times are wall clock and go on while the server is down, so an outage expires every lease.
-- After a restart owners get one lease to beat again before anything is taken from them.
local function may_reclaim(lease_ms)
  local uptime_s = string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')
  return uptime_s * 1000 > lease_ms + 1000
end
