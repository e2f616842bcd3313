-- A message that has expired leaves the timeline, and its body goes. KEYS: due X, body, timeline. ARGV: id, seq.
call('ZREMRANGEBYSCORE', KEYS[3], ARGV[2], ARGV[2])
call('UNLINK', KEYS[2])
call('ZREM', KEYS[1], ARGV[1])
return 0
