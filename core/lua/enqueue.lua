-- ENQUEUE id, lane, job JSON, attempt, rev of its plan or '', lane limit
--   -> 'queued', 'known' or 'full'
-- No allow-oom: a server without memory takes no new job but ends those that it has.
local id, lane, spec, attempt, rev = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit = tonumber(ARGV[6])
if redis.call('EXISTS', job_key(id)) == 1 then return 'known' end
if redis.call('XLEN', lane_key(lane)) >= limit then return 'full' end
local entry = redis.call('XADD', lane_key(lane), '*', 'job', id)
-- The fence starts from the clock, in microseconds: when the server lost its data and the job is
-- put in again, no owner from before holds a fence that is valid now.
local time = redis.call('TIME')
redis.call('HSET', job_key(id), 'spec', spec, 'status', 'queued', 'lane', lane, 'entry', entry,
  'attempt', attempt, 'crashes', 0, 'retries', 0, 'fence', time[1] * 1000000 + time[2],
  'owner', '', 'cancel', '', 'seq', 0, 'plan_rev', rev, 'queued_at', now())
tell(id, 'queued', '{}')
return 'queued'
